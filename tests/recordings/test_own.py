"""Runs that `l4sim record` wrote: what is read of them, decided once more, fitted and predicted."""

from __future__ import annotations

import gzip
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4sim.cli import main
from l4sim.cost.basis import basis_of
from l4sim.cost.profile import load_profile
from l4sim.errors import InputError
from l4sim.recordings.formats import read_recording, recognise
from l4sim.recordings.own import read_iterations, read_requests
from l4sim.recordings.own_seconds import validate_own_seconds
from l4sim.specs.model import load_model

SAMPLES = Path(__file__).parent / "samples"
AMPLE, SHORT = SAMPLES / "vllm_cpu", SAMPLES / "vllm_cpu_short"


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the ample run's iterations."""
    out = tmp_path_factory.mktemp("fitted")
    assert command("profile", "fit", str(AMPLE), "--out", str(out)) == 0
    return out


def test_the_folder_is_recognised_and_holds_all_that_vllm_resolved() -> None:
    found = recognise(SHORT)
    assert found is not None
    assert found.name == "l4sim record"
    engine = read_recording(SHORT).engine
    assert (engine.version, engine.kv_blocks, engine.block_tokens) == ("0.32.0", 49, 32)
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.max_model_len) == (16, 512, 1536)
    assert (engine.prefix_caching, engine.async_scheduling) == (True, False)


def test_latencies_count_from_when_a_request_reached_the_engine() -> None:
    rows = read_requests(AMPLE)
    requests = read_recording(AMPLE).requests
    way_s = min(row.queued_ts - row.arrival_ts for row in rows)
    by_id = {row.request_id: row for row in rows}
    for request, ttft_s, e2e_s in zip(requests.request_id, requests.ttft_s, requests.e2e_s, strict=True):
        row = by_id[request]
        assert row.first_token_ts is not None
        assert row.last_token_ts is not None
        assert ttft_s == pytest.approx(row.first_token_ts - row.arrival_ts - way_s)
        assert e2e_s == pytest.approx(row.last_token_ts - row.arrival_ts - way_s)
        assert ttft_s >= row.first_token_ts - row.queued_ts


def test_what_prompts_share_is_told_by_their_blocks() -> None:
    rows = read_requests(AMPLE)
    shared = [row for row in rows if row.cached_toks]
    assert shared
    for row in shared:
        earlier = {block for other in rows if other.queued_ts < row.queued_ts for block in other.prefix_ids}
        assert row.cached_toks is not None
        assert set(row.prefix_ids[: row.cached_toks // 32]) <= earlier
    prefix = read_recording(AMPLE).requests.prefix
    assert prefix is not None
    assert prefix.block_tokens == 32


def test_iterations_follow_one_another_and_add_up_to_their_requests() -> None:
    iterations, rows = read_iterations(SHORT), read_requests(SHORT)
    assert all(later.start_s >= earlier.end_s for earlier, later in pairwise(iterations))
    tokens = np.zeros(len(rows), dtype=np.int64)
    sampled = np.zeros(len(rows), dtype=np.int64)
    for iteration in iterations:
        assert iteration.batch.tokens == sum(one.tokens for one in iteration.work) <= 512
        for one in iteration.work:
            tokens[one.request] += one.tokens
            sampled[one.request] += one.samples
    for row in rows:
        assert sampled[row.number] == row.output_toks
        assert row.cached_toks is not None
        least = row.input_toks + row.output_toks - 1 - row.cached_toks
        assert tokens[row.number] >= least if row.preemptions else tokens[row.number] == least


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "requests", "preemptions"), [(AMPLE, 60, 0), (SHORT, 24, 5)])
def test_with_the_runs_own_seconds_every_iteration_is_decided_as_vllm_did(
    folder: Path, requests: int, preemptions: int
) -> None:
    found = validate_own_seconds(folder)
    assert found.difference is None
    assert found.alike == found.iterations == len(read_iterations(folder))
    assert len(found.ttft_off_s) == len(found.e2e_off_s) == requests
    assert found.preemptions == preemptions
    assert not found.ttft_off_s.any()
    assert not found.e2e_off_s.any()


@pytest.mark.slow
def test_other_rules_part_at_an_iteration_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("validate", "vllm", str(AMPLE), "--own-seconds", "--max-num-batched-tokens", "256") == 1
    out = capsys.readouterr().out
    assert "only in the engine's" in out
    assert "only in the rules'" in out


@pytest.mark.slow
def test_a_profile_of_iterations_serves_their_model_alone(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = load_profile(str(fitted))
    assert profile.basis == basis_of(profile, load_model(str(AMPLE)), profile.default_kernel) == "measured"
    assert profile.gpu.name == "cpu"
    told = profile.kernels[profile.default_kernel].errors["iterations"]
    assert told["points"] > 50
    assert command("compare", "--profile", str(fitted), "--limit", "10", "--instances", "1") == 2
    told_line = capsys.readouterr().err.splitlines()[-1]
    assert "fitted to recorded iterations of tiny-random at tensor parallel 1 alone" in told_line
    assert (
        command("compare", "--profile", str(fitted), "--model", str(AMPLE), "--cost-model", "mean", "--limit", "10")
        == 2
    )
    assert "cost model mean needs attention alone" in capsys.readouterr().err


@pytest.mark.slow
def test_it_predicts_another_run_and_refuses_its_own(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("validate", "vllm", str(SHORT), "--profile", str(fitted), "--json", "--tolerance", "1000")
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    errors = {figure["metric"]: figure["error_pct"] for figure in told["figures"]}
    # Recorded on cores that others used: the seconds are no measure of the model, only of their order.
    assert all(abs(error) < 300 for error in errors.values())
    assert command("validate", "vllm", str(AMPLE), "--profile", str(fitted)) == 2
    assert "which it is to predict: fit it to another run" in capsys.readouterr().err


def test_few_iterations_make_no_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "few"
    shutil.copytree(SHORT, folder)
    with gzip.open(SHORT / "iterations.jsonl.gz", "rt") as file:
        lines = file.readlines()
    (folder / "iterations.jsonl.gz").write_bytes(gzip.compress("".join(lines[:20]).encode()))
    assert command("profile", "fit", str(folder), "--out", str(tmp_path / "profile")) == 2
    assert "20 iterations, accepted are 100 or more: record for longer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_toks": 0}, "line 1: input_toks is 0, accepted is a whole number >= 1"),
        ({"prefix_ids": ...}, "line 1: prefix_ids is missing"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(SHORT, folder)
    with gzip.open(SHORT / "requests.jsonl.gz", "rt") as file:
        first, *others = file.readlines()
    row = {name: value for name, value in {**json.loads(first), **change}.items() if value is not ...}
    (folder / "requests.jsonl.gz").write_bytes(gzip.compress("".join([json.dumps(row) + "\n", *others]).encode()))
    with pytest.raises(InputError, match=message):
        read_recording(folder)


def test_an_answer_that_was_aborted_is_replayed_and_not_compared(tmp_path: Path) -> None:
    folder = tmp_path / "aborted"
    shutil.copytree(SHORT, folder)
    with gzip.open(SHORT / "requests.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    rows[3]["finish_reason"] = "abort"
    (folder / "requests.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    requests = read_recording(folder).requests
    assert len(requests.request_id) == 24
    assert np.isnan(requests.e2e_s).sum() == 1
