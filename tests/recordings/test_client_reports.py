"""Load generators' reports, each made by its tool (`samples/README.md`): what is read of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4sim.cli import main
from l4sim.errors import InputError
from l4sim.recordings.formats import read_recording, recognise

SAMPLES = Path(__file__).parent / "samples"
TOOLS = {
    "vllm bench serve": SAMPLES / "vllm_bench.json",
    "AIPerf": SAMPLES / "aiperf",
    "guidellm": SAMPLES / "guidellm.json",
    "inference-perf": SAMPLES / "inference-perf",
}


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_tools_report_is_recognised_and_measured_by_clients(tool: str) -> None:
    found = recognise(TOOLS[tool])
    assert found is not None
    assert found.name == tool
    assert read_recording(TOOLS[tool]).measured_at == "client"


def test_latencies_are_those_of_the_server_that_answered(tool: str) -> None:
    """It takes 20 ms and 0.05 ms a word to the first token, 5 ms for each further one; clients see some more."""
    requests = read_recording(TOOLS[tool]).requests
    assert len(requests.request_id) == (7 if tool == "guidellm" else 8)
    assert (requests.ttft_s >= 0.02 + 0.05e-3 * requests.prompt_tokens).all()
    assert (requests.tpot_s >= 5e-3).all()
    assert np.median(requests.ttft_s) < 0.05
    assert np.median(requests.tpot_s) < 10e-3
    assert requests.e2e_s == pytest.approx(requests.ttft_s + requests.tpot_s * (requests.output_tokens - 1))
    assert requests.arrival_s[0] == 0
    assert (np.diff(requests.arrival_s) >= 0).all()
    assert 0.5 < requests.arrival_s[-1] < 1


def test_what_the_tool_printed_of_the_run_is_what_is_read_of_it() -> None:
    told = json.loads(TOOLS["vllm bench serve"].read_text())
    requests = read_recording(TOOLS["vllm bench serve"]).requests
    assert requests.ttft_s.mean() * 1e3 == pytest.approx(told["mean_ttft_ms"])
    assert requests.tpot_s.mean() * 1e3 == pytest.approx(told["mean_tpot_ms"], rel=0.01)
    assert requests.prompt_tokens.sum() == told["total_input_tokens"]


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[Path, Callable[[Any], Any]], Path]:
    """A copy of a JSON report with a change."""

    def write(source: Path, change: Callable[[Any], Any]) -> Path:
        values = json.loads(source.read_text())
        copy = tmp_path / source.name
        copy.write_text(json.dumps(change(values) or values))
        return copy

    return write


Changed = Callable[[Path, Callable[[Any], Any]], Path]


def test_a_request_that_failed_is_replayed_and_not_compared(changed: Changed) -> None:
    def fail(report: dict[str, Any]) -> None:
        report["errors"][2], report["output_lens"][2], report["ttfts"][2] = "Connection reset", 0, 0.0

    requests = read_recording(changed(TOOLS["vllm bench serve"], fail)).requests
    assert len(requests.request_id) == 8
    assert np.isnan(requests.ttft_s).sum() == np.isnan(requests.e2e_s).sum() == 1
    assert (requests.output_tokens >= 1).all()


def test_a_report_without_requests_asks_for_them(changed: Changed) -> None:
    figures = changed(TOOLS["vllm bench serve"], lambda report: {k: v for k, v in report.items() if k != "ttfts"})
    with pytest.raises(InputError, match="only figures over all: save it with --save-detailed"):
        read_recording(figures)


def test_several_benchmarks_are_several_runs(changed: Changed) -> None:
    def twice(report: dict[str, Any]) -> None:
        report["benchmarks"] *= 2

    with pytest.raises(InputError, match="2 benchmarks, accepted is one"):
        read_recording(changed(TOOLS["guidellm"], twice))


def test_answers_that_were_not_streamed_have_no_first_token(changed: Changed) -> None:
    def whole(report: list[Any]) -> None:
        for request in report:
            request["info"]["response_metrics"].update(output_token_times=[], chunk_times=[])

    with pytest.raises(InputError, match=r"\[0\]: no times of its tokens: run inference-perf with api: streaming"):
        read_recording(changed(TOOLS["inference-perf"] / "per_request_lifecycle_metrics.json", whole))


def test_aiperfs_warm_up_is_no_part_of_the_run(tmp_path: Path) -> None:
    lines = (TOOLS["AIPerf"] / "profile_export.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["metadata"]["benchmark_phase"] = "warmup"
    file = tmp_path / "export.jsonl"
    file.write_text("\n".join([json.dumps(first), *lines[1:]]))
    assert len(read_recording(file).requests.request_id) == 7


def test_aiperf_without_streaming_is_told_how(tmp_path: Path) -> None:
    line = json.loads((TOOLS["AIPerf"] / "profile_export.jsonl").read_text().splitlines()[0])
    del line["metrics"]["time_to_first_token"]
    file = tmp_path / "export.jsonl"
    file.write_text(json.dumps(line))
    with pytest.raises(InputError, match="line 1: metrics: time_to_first_token missing: run AIPerf with --streaming"):
        read_recording(file)


def test_what_the_report_does_not_tell_is_asked_for_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "vllm", str(TOOLS["AIPerf"])])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].endswith("does not tell which model it was (--model) nor which GPU (--gpu, or --profile)")


@pytest.mark.slow
def test_with_it_the_run_is_predicted_and_defaults_are_named(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        str(TOOLS[tool]),
        "--model",
        "tiny",
        "--gpu",
        "h100-sxm",
        "--max-num-seqs",
        "32",
        "--no-prefix-caching",
    ]
    with pytest.raises(SystemExit):
        main(["validate", "vllm", *arguments, "--tolerance", "1000", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [figure["metric"] for figure in told["figures"]] == [
        f"{metric}_s_{statistic}" for metric in ("ttft", "tpot", "e2e") for statistic in ("mean", "p99")
    ]
    rules, limits = told["assumptions"]
    assert rules.startswith("vLLM's version is not recorded: the rules and defaults are")
    assert limits.endswith("defaults for serving on h100-sxm: max_num_batched_tokens 8192, tensor_parallel 1")


def test_a_file_of_no_tool_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"some": "thing"}')
    with pytest.raises(InputError, match="no recorded run is in it: accepted are"):
        read_recording(file)
