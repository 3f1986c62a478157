"""From measured points to a replay: what the profiler writes, ``profile fit`` fits and ``replay`` runs on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from l4sim.cli import main
from l4sim.cost.build import build_cost
from l4sim.cost.profile import load_profile
from l4sim.specs.model import load_model
from tests.validate_gpu.measure.known_law import (
    ATTENTION,
    CPU,
    ELEMENTWISE_BYTES_PER_S,
    ELEMENTWISE_S,
    HOST_S,
    LawBench,
    batch_of,
    iteration_s,
)
from validate_gpu.measure.points import Point, Sample
from validate_gpu.measure.work import CheckFailedError

TINY = load_model("tiny")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


@pytest.fixture
def law(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU whose times follow the law."""
    monkeypatch.setattr("validate_gpu.measure.setup.TorchBench.measure", lambda self, point: LawBench().measure(point))
    monkeypatch.setattr("validate_gpu.measure.describe.describe_gpu", lambda device, name: CPU)


@pytest.mark.slow
@pytest.mark.usefixtures("law")
def test_points_become_a_profile_and_the_profile_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "law"
    code, out, err = run(
        capsys, "profile", "measure", "--device", "cpu", "--out", str(folder), "--budget", "10m", "--json"
    )
    assert code == 0, err
    assert "0 there before, 0 not reached" in err
    measured = json.loads(out)

    (folder / "profile.json").unlink()
    code, out, err = run(capsys, "profile", "fit", str(folder), "--json")
    assert code == 0, err
    refitted = json.loads(out)
    assert refitted == measured
    for kind in ("uniform", "heterogeneous", "prefill", "mixed"):
        assert refitted[f"attention, torch-cpu, {kind}"]["worst_pct"] < 0.01
    assert refitted["iteration"]["worst_pct"] < 1

    profile = load_profile(str(folder))
    assert profile.measured
    assert profile.default_kernel == "torch-cpu"
    coefficients = profile.kernels["torch-cpu"].coefficients
    assert coefficients["request_s"] == pytest.approx(ATTENTION.request_s, rel=1e-4)
    assert profile.host.decode_s == pytest.approx(HOST_S, rel=0.02)
    assert profile.elementwise.kernel_s == pytest.approx(ELEMENTWISE_S, rel=1e-4)
    assert profile.elementwise.bandwidth_fraction == pytest.approx(
        ELEMENTWISE_BYTES_PER_S / CPU.memory_bytes_per_s, rel=1e-4
    )

    cost = build_cost(profile, TINY, max_num_batched_tokens=2048, max_num_seqs=64)
    for batch in (batch_of((700,)), batch_of((64,) * 20 + (4000,)), batch_of((90, 5), ((300, 200),))):
        assert cost.iteration_s(batch) == pytest.approx(iteration_s(TINY, batch), rel=0.01)

    trace = tmp_path / "trace.csv"
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,100,1\n")
    arguments = ("--model", "tiny", "--profile", str(folder), "--instances", "1", "--policy", "round-robin", "--json")
    code, out, err = run(capsys, "replay", str(trace), *arguments)
    assert code == 0, err
    [summary] = json.loads(out)["policies"]
    ttft_s = summary["ttft_s"]["mean"]
    assert ttft_s == pytest.approx(iteration_s(TINY, batch_of((), ((100, 0),))), rel=0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("law")
def test_a_second_command_measures_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("profile", "measure", "--device", "cpu", "--out", str(tmp_path / "law"), "--budget", "10m")
    run(capsys, *command)
    code, _, err = run(capsys, *command)
    assert code == 0
    assert "0 points measured" in err


@pytest.mark.slow
def test_a_kernel_that_fails_its_check_is_told_and_the_rest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, law: None
) -> None:
    def measure(self: object, point: Point) -> Sample:
        if point.table == "kv_copy":
            raise CheckFailedError("the result differs from float32 by nan")
        return LawBench().measure(point)

    monkeypatch.setattr("validate_gpu.measure.setup.TorchBench.measure", measure)
    folder = tmp_path / "law"
    code, _, err = run(capsys, "profile", "measure", "--device", "cpu", "--out", str(folder), "--budget", "10m")
    assert code == 1
    assert "FAILED kv_copy: " in err
    assert "the result differs from float32 by nan" in err
    assert f"failed points are listed in {folder / 'failures.csv'}" in err
    assert load_profile(str(folder)).measured
    assert not (folder / "kv_copy.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["measure", "--device", "cuda", "--out", "x"], "--device cuda: no GPU is visible; --device cpu --model tiny"),
        (["check", "--device", "cuda"], "--device cuda: no GPU is visible; --device cpu --model tiny"),
        (["measure", "--device", "tpu", "--out", "x"], "no device 'tpu': accepted are auto, cpu, cuda and cuda:N"),
        (["measure", "--out", "x", "--budget", "soon"], "--budget is 'soon', accepted is a time above 0 such as 90s"),
        (["measure", "--out", "x", "--budget", "0m"], "--budget is '0m', accepted is a time above 0"),
    ],
)
def test_what_is_missing_is_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    code, _, err = run(capsys, "profile", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_too_little_time_keeps_the_points_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "profile", "measure", "--device", "cpu", "--out", str(tmp_path), "--budget", "1s")
    assert code == 2
    assert "measure for longer" in err
    assert (tmp_path / "measured.json").is_file()


@pytest.mark.slow
def test_the_ground_check_passes_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "profile", "check", "--device", "cpu")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "ok   PyTorch",
        "ok   torch-cpu",
        "ok   torch-cpu prompts",
        "ok   linear",
        "ok   kv_copy",
    ]
