"""Replaying recorded runs: what is compared with what, and which engine is simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from l4sim.cli import cli, main
from l4sim.errors import InputError
from l4sim.recordings.replay import validate_vllm

from .conftest import META, Record, request


def figures(folder: Path, **given: str) -> dict[str, Any]:
    return {figure.metric: figure for figure in validate_vllm(folder, **given).figures}


def test_a_run_that_went_as_predicted_has_no_error(record: Record) -> None:
    replayed = validate_vllm(record()).run.requests
    rows = [
        request(number, first_token_ts=1000 + number + ttft_s, last_token_ts=1000 + number + e2e_s)
        for number, (ttft_s, e2e_s) in enumerate(zip(replayed["ttft_s"], replayed["e2e_s"], strict=True))
    ]
    found = validate_vllm(record(rows))
    assert [figure.metric for figure in found.figures] == [
        f"{metric}_s_{statistic}" for metric in ("ttft", "tpot", "e2e") for statistic in ("mean", "p99")
    ]
    assert [figure.error_pct for figure in found.figures] == pytest.approx([0.0] * 6, abs=1e-6)
    assert found.beyond(0.001) == ()


def test_errors_are_relative_to_what_was_measured(record: Record) -> None:
    ttft = figures(record())["ttft_s_mean"]
    assert ttft.measured == pytest.approx(0.05)
    assert ttft.error_pct == pytest.approx(100 * (ttft.predicted / 0.05 - 1))


def test_an_engine_short_of_kv_blocks_preempts_and_is_slower(record: Record) -> None:
    rows = [request(number, queued_ts=1000.0, output_toks=600, last_token_ts=1020.0) for number in range(8)]
    ample = validate_vllm(record(rows))
    # Eight requests grow to 50 blocks each.
    short = validate_vllm(record(rows, META | {"kv_cache": {"num_gpu_blocks": 201, "block_size": 16}}))
    assert (ample.preemptions, short.setup.engine.kv_blocks) == (0, 200)
    assert short.preemptions > 0
    assert short.figures[4].predicted > 1.2 * ample.figures[4].predicted
    assert short.kv_blocks_from.startswith("recorded")
    assert ample.kv_blocks_from.startswith("derived")


def test_tensor_parallel_runs_use_the_profiles_all_reduce(record: Record) -> None:
    meta = META | {"model": "Qwen/Qwen3-32B", "engine_kwargs": META["engine_kwargs"] | {"tensor_parallel_size": 2}}
    found = validate_vllm(record(meta=meta))
    assert (found.setup.model.name, found.setup.cluster.tensor_parallel) == ("qwen3-32b", 2)
    assert found.setup.groups[0].basis.endswith("all-reduce among 2 measured in vLLM 0.19.0")
    # Half of 61 GB of weights for every token.
    assert found.figures[2].predicted > 30e9 / 1.597e12


def test_all_reduces_are_of_the_version_that_ran_whatever_the_rules(record: Record) -> None:
    engine = META["engine_kwargs"] | {"tensor_parallel_size": 2}
    meta = META | {"model": "Qwen/Qwen3-32B", "engine_kwargs": engine, "vllm_version": "0.24.1"}
    found = validate_vllm(record(meta=meta), profile="rtx-pro-6000")
    assert found.setup.groups[0].basis.endswith("all-reduce among 2 measured in vLLM 0.24.0")


def test_a_request_that_does_not_fit_is_named(record: Record) -> None:
    folder = record(meta=META | {"engine_kwargs": META["engine_kwargs"] | {"max_model_len": 256}})
    with pytest.raises(
        InputError, match="request bench-0 cannot be replayed: prompt and output exceed max_model_len 256"
    ):
        validate_vllm(folder)


def test_the_command_exits_with_1_beyond_the_tolerance(record: Record, tmp_path: Path) -> None:
    arguments = ["validate", "vllm", str(record()), "--json"]
    wide = CliRunner().invoke(cli, [*arguments, "--tolerance", "100000%", "--out", str(tmp_path / "out")])
    assert wide.exit_code == 0, wide.output
    told = json.loads(wide.stdout)
    assert told["within_tolerance"] is True
    assert {"metric", "measured", "predicted", "error_pct"} == set(told["figures"][0])
    assert json.loads((tmp_path / "out" / "validation.json").read_text()) == told
    narrow = CliRunner().invoke(cli, [*arguments, "--tolerance", "0"])
    assert narrow.exit_code == 1
    assert "beyond 0 %: ttft_s_mean" in narrow.stderr


def test_a_wrong_tolerance_is_one_line(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "vllm", str(record()), "--tolerance", "two"])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "'two' is no percentage" in told[0]


@pytest.mark.slow
def test_vllms_run_is_met_with_the_profile_of_its_gpu(shared: Path) -> None:
    folder = shared / "validation" / "vllm0.19_rtxpro6000_llama3.1-8b"
    found = figures(folder, profile="rtx-pro-6000")
    assert abs(found["ttft_s_mean"].error_pct) <= 4
    assert abs(found["tpot_s_mean"].error_pct) <= 1
    assert abs(found["e2e_s_mean"].error_pct) <= 1.5
    assert abs(found["e2e_s_p99"].error_pct) <= 2


@pytest.mark.slow
@pytest.mark.xdist_group("imported")
def test_importing_the_folders_own_profile_predicts_the_same(
    recorded_folder: Path, imported_profile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def imported(folder: Path, *of_its_run: Any, **more: Any) -> dict[str, Any]:
        assert folder == recorded_folder / "profile"
        return imported_profile

    monkeypatch.setattr("l4sim.recordings.instance.import_llmservingsim", imported)
    own, bundled = figures(recorded_folder), figures(recorded_folder, profile="rtx-pro-6000")
    for metric, figure in own.items():
        assert figure.predicted == pytest.approx(bundled[metric].predicted, rel=1e-3)
