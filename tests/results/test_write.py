"""The files that a comparison leaves."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from l4sim.errors import InputError
from l4sim.policies.plan import Stage
from l4sim.results.run import REQUESTS
from l4sim.results.write import dump_json, write_run


def test_tables_come_back_as_they_were_policy_after_policy(tmp_path, runs):
    write_run(tmp_path, {}, runs, {})
    for name in ("requests", "iterations", "migrations", "boundaries"):
        expected = pd.concat([getattr(run, name) for run in runs if len(getattr(run, name))], ignore_index=True)
        assert_frame_equal(pd.read_parquet(tmp_path / f"{name}.parquet"), expected)


def test_the_requests_have_the_documented_columns(tmp_path, runs):
    write_run(tmp_path, {}, runs, {})
    assert pq.read_schema(tmp_path / "requests.parquet").names == list(REQUESTS)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(tmp_path, make_run):
    for folder in ("one", "two"):
        runs = [make_run("round-robin"), make_run("l4", stages=4, refined=True)]
        write_run(tmp_path / folder, {"seed": 1}, runs, {"l4": {"x": 0.1}})
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    parquets = [f"{name}.parquet" for name in ("boundaries", "iterations", "migrations", "requests")]
    assert names == sorted(["config.json", "summary.json", *parquets])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_missing_latencies_are_null_not_nan(tmp_path, make_tiny, no_latencies):
    run = make_tiny(requests=[{}, {"status": "rejected"} | no_latencies])
    write_run(tmp_path, {}, [run], {})
    assert pq.read_table(tmp_path / "requests.parquet")["e2e_s"].to_pylist() == [2.0, None]


def test_an_older_runs_boundaries_go_and_foreign_files_stay(tmp_path, make_run):
    (tmp_path / "notes.txt").write_text("mine")
    write_run(tmp_path, {}, [make_run("l4", stages=3, refined=True)], {})
    assert (tmp_path / "boundaries.parquet").exists()
    written = write_run(tmp_path, {}, [make_run("l4", stages=3)], {})
    assert not (tmp_path / "boundaries.parquet").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [path.name for path in written] == [
        "config.json",
        "summary.json",
        "requests.parquet",
        "iterations.parquet",
        "migrations.parquet",
    ]


def test_a_file_in_the_way_is_told_in_one_line(tmp_path, runs):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"out: cannot be written .*exists.*; choose a folder"):
        write_run(tmp_path / "out", {}, runs, {})


def test_json_has_sorted_keys_null_for_nan_and_exact_floats():
    text = dump_json({"b": math.nan, "a": 0.1, "c": np.float64(1 / 3)})
    assert text == '{\n  "a": 0.1,\n  "b": null,\n  "c": 0.3333333333333333\n}\n'


def test_json_takes_what_a_resolved_configuration_holds():
    @dataclasses.dataclass(frozen=True)
    class GPU:
        name: str
        sms: int

    value = {
        "gpu": GPU("H200", 132),
        "path": Path("a/b"),
        "stage": Stage(0, 8, (1, 2)),
        "n": np.int64(3),
        "on": True,
    }
    assert json.loads(dump_json(value)) == {
        "gpu": {"name": "H200", "sms": 132},
        "path": "a/b",
        "stage": [0, 8, [1, 2]],
        "n": 3,
        "on": True,
    }


def test_json_refuses_what_it_could_only_write_wrongly():
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"rate": math.inf})
    with pytest.raises(TypeError, match="not JSON serializable"):
        dump_json({"policies": {1, 2}})
