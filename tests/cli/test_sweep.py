"""`l4sim sweep` as its users meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from l4sim.cli import main

GRID = """
policies: [round-robin, l4]
rate: [2, 8]
seeds: [0, 1]
model: tiny
instances: 2
kv_blocks: 4096
synth:
  prompt_lengths: fixed:tokens=200
  output_lengths: lognormal:mu=3,sigma=0.5
  requests: 60
  rate: 5
"""


def run(capsys, *argv):
    """Exit code, stdout and stderr of a call."""
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


@pytest.mark.slow
def test_it_prints_means_and_leaves_tables_and_pictures(capsys, spec, tmp_path):
    out = tmp_path / "out"
    code, text, err = run(capsys, "sweep", str(spec), "--out", str(out), "--slo", "ttft=1s", "--price", "2")
    assert code == 0
    assert "8 points done, 0 failed" in text
    assert "±" in text
    assert "sweep.parquet" in err
    names = {path.name for path in out.iterdir()}
    pictures = {"latency.png", "goodput.png", "slo_attainment.png"}
    assert names == {"points", "config.json", "sweep.parquet", "means.parquet", "changes.parquet", *pictures}
    assert len(pd.read_parquet(out / "means.parquet")) == 4


@pytest.mark.slow
def test_the_table_fits_eighty_columns_with_every_figure_whole(capsys, spec, tmp_path):
    _, text, _ = run(capsys, "sweep", str(spec), "--out", str(tmp_path / "out"), "--slo", "ttft=1s", "--price", "2")
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
def test_json_is_alone_on_stdout(capsys, spec, tmp_path):
    code, text, _ = run(capsys, "sweep", str(spec), "--out", str(tmp_path), "--no-plots", "--json")
    document = json.loads(text)
    assert code == 0
    assert len(document["points"]) == 8
    assert document["capacity"] is None
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_a_search_prints_each_policys_capacity(capsys, spec, tmp_path):
    spec.write_text(GRID.replace("rate: [2, 8]\n", "").replace("seeds: [0, 1]\n", ""))
    options = ["--slo", "ttft_p99=0.8ms", "--search", "rate", "--json"]
    code, text, _ = run(capsys, "sweep", str(spec), "--out", str(tmp_path / "out"), *options)
    assert code == 0
    found = json.loads(text)["capacity"]
    assert [row["policy"] for row in found] == ["round-robin", "l4"]
    assert all(row["rate_per_s"] > 0 and row["ttft_p99_s"] <= 0.0008 for row in found)


@pytest.mark.slow
def test_a_search_draws_the_capacities_and_a_report_holds_them(capsys, spec, tmp_path):
    spec.write_text(GRID.replace("rate: [2, 8]\n", "").replace("seeds: [0, 1]\n", ""))
    out = tmp_path / "out"
    code, text, err = run(
        capsys, "sweep", str(spec), "--out", str(out), "--slo", "ttft_p99=0.8ms", "--search", "rate", "--html"
    )
    assert code == 0
    assert "rate_" in text
    assert "capacity.png, report.html" in err
    assert {path.name for path in out.iterdir()} == {
        "points",
        *("config.json", "sweep.parquet", "means.parquet", "capacity.parquet", "capacity.png", "report.html"),
    }
    assert "What is the highest arrival rate" in (out / "report.html").read_text()


@pytest.mark.slow
def test_failed_points_are_counted_with_their_errors_and_the_rest_is_done(capsys, spec, tmp_path):
    spec.write_text(GRID + "kernel: [null, fa9]\n")
    code, text, _ = run(capsys, "sweep", str(spec), "--out", str(tmp_path / "out"), "--no-plots")
    assert code == 0
    assert "8 points done, 8 failed" in text
    assert "no kernel 'fa9'" in text


@pytest.mark.slow
def test_too_many_combinations_for_a_picture_are_told(capsys, spec, tmp_path):
    spec.write_text(
        GRID.replace("instances: 2", "instances: [1, 2, 3, 4, 5, 6, 7]").replace("[0, 1]", "0").replace("60", "5")
    )
    code, _, err = run(capsys, "sweep", str(spec), "--out", str(tmp_path / "out"))
    assert code == 0
    assert "no pictures: 7 combinations of instances: a picture has room for 6" in err


@pytest.mark.parametrize(
    ("changed", "argv", "complaint"),
    [
        ("polices: l4", [], "grid.yaml: unknown key 'polices' (did you mean policies?); accepted are policies, trace"),
        ("rate: [1", [], "grid.yaml:2: "),
        ("policies: l5", [], "grid.yaml: no policy 'l5': accepted are random"),
        ("trace: none.csv", [], "grid.yaml: every point failed: none.csv: cannot be read"),
        ("rate: 2", ["--search", "rate"], "a search for rate needs an SLO"),
        ("rate: 2", ["--search", "rate", "--slo", "ttft=1s"], "leave rate_per_s out of the grid"),
        ("rate: 2", ["--slo", "ttft=fast"], "'fast' is no positive time"),
        ("rate: 2", ["--price", "0"], "the price per GPU-hour must be above 0 USD"),
        ("rate: 2", ["--executor", "ray"], "no executor 'ray': accepted are dask=ADDRESS"),
        ("rate: 2", ["--executor", "dask=x", "--jobs", "2"], "--jobs and --executor exclude one another"),
        ("rate: 2", ["--jobs", "0"], "'--jobs': 0 is not in the range x>=1"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(capsys, spec, tmp_path, changed, argv, complaint):
    spec.write_text(changed + "\n")
    code, out, err = run(capsys, "sweep", str(spec), "--out", str(tmp_path / "out"), *argv)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert complaint in err


@pytest.mark.slow
def test_a_killed_sweep_resumes_and_repeats_nothing(spec, tmp_path):
    out, points = tmp_path / "out", tmp_path / "out" / "points"
    command = [sys.executable, "-m", "l4sim", "sweep", str(spec), "--out", str(out), "--no-plots"]
    spec.write_text(GRID.replace("requests: 60", "requests: 600").replace("rate: [2, 8]", "rate: [2, 8, 16]"))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list(points.glob("*.parquet"))) < 2 and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    before = {path.name: path.stat().st_mtime_ns for path in points.glob("*.parquet")}
    assert 2 <= len(before) < 12
    subprocess.run(command, check=True, capture_output=True)
    after = {path.name: path.stat().st_mtime_ns for path in points.glob("*.parquet")}
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
