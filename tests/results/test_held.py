"""How sure: which measured runs are nearest, what they say, and when a comparison is closer than that."""

from __future__ import annotations

from typing import Any

import pytest

from l4sim.experiment import Options, Setup, resolve
from l4sim.results import held
from l4sim.results.held import HeldRun, closer_than_error, held_against, held_line, load_held


def run(name: str, profile: str, tensor_parallel: int, error_pct: float, kind: str | None = "graph-timed") -> HeldRun:
    return HeldRun(name, "vLLM 0.19.0", profile, tensor_parallel, "a-model", {"e2e_s_mean": error_pct}, kind)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = (
        run("a", "h100-sxm", 1, 1.0),
        run("b", "h100-sxm", 1, -3.0),
        run("c", "h100-sxm", 2, -60.0),
        run("d", "rtx-pro-6000", 1, 5.0, "eager-timed"),
    )
    monkeypatch.setattr(held, "load_held", lambda: runs)


def setup(profile: str, **options: Any) -> Setup:
    return resolve(Options(instances=2, profile=profile, **options))


def summary(policy: str, normalized_s: float, finished: int = 5) -> dict[str, Any]:
    return {"policy": policy, "requests": {"finished": finished}, "normalized_latency_s": {"mean": normalized_s}}


def test_runs_of_the_same_profile_and_parallelism_come_first() -> None:
    assert held_line(setup("h100-sxm")) == (
        "How sure: held against 2 measured runs of vLLM 0.19.0 on h100-sxm, TP 1: mean E2E off by 1.0 to 3.0 %."
    )
    assert held_line(setup("h100-sxm", tensor_parallel=2)).endswith("on h100-sxm, TP 2: mean E2E off by 60.0 %.")


def test_else_the_profile_at_other_sizes_else_profiles_timed_alike() -> None:
    assert "on h100-sxm at TP 1, 2, not 4: mean E2E off by 1.0 to 60.0 %, median 3.0" in held_line(
        setup("h100-sxm", tensor_parallel=4)
    )
    assert "on h100-sxm, not on h200-sxm" in held_line(setup("h200-sxm"))


def test_what_was_never_held_against_anything_says_so() -> None:
    nobody = held_against(setup("h200-flashinfer").groups[0])
    assert (str(nobody), nobody.error_pct) == ("held against no measured run", None)


def test_a_lead_below_the_error_is_told() -> None:
    summaries = [summary("round-robin", 0.040), summary("l4", 0.0303), summary("two-pools", 0.030)]
    assert closer_than_error(setup("h100-sxm"), summaries) == [
        "two-pools and l4 differ by 1.0 %, less than the model's error on this class (2.0 % of mean E2E)."
    ]
    assert closer_than_error(setup("h200-flashinfer"), summaries) == []
    assert closer_than_error(setup("h100-sxm"), [*summaries[:1], summary("l4", 0.0401, finished=0)]) == []


def test_the_bundled_file_has_every_run_with_its_mean() -> None:
    assert all("e2e_s_mean" in each.errors_pct for each in load_held())
