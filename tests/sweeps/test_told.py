"""What a sweep comes to, in words."""

from __future__ import annotations

import pandas as pd
import pytest

from l4sim.sweeps.result import SweepResult
from l4sim.sweeps.told import COLUMNS, failures, figure_text, setting_text, short_runs, unfinished

TTFT, TPOT, *_ = COLUMNS


def result(points, capacity=None, search=None):
    table = pd.DataFrame(points)
    return SweepResult(table, table, None if capacity is None else pd.DataFrame(capacity), {}, None, search, None)


def point(policy="l4", status="done", error="", **more):
    return {"policy": policy, "status": status, "error": error, **more}


@pytest.mark.parametrize(
    ("figures", "column", "told"),
    [
        ({"ttft_p99_s": 1.2345}, TTFT, ("1.23", "")),
        ({"ttft_p99_s": 1.2345, "ttft_p99_s_ci95": 0.5}, TTFT, ("1.23", "±0.50")),
        ({"tpot_p99_s": 0.0456, "tpot_p99_s_ci95": 0.1}, TPOT, ("45.6", "±100.0")),
        ({"ttft_p99_s": float("nan")}, TTFT, ("–", "")),
    ],
)
def test_a_figure_and_its_interval_have_the_same_decimals(figures, column, told):
    assert figure_text(figures, column) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "–"), (float("nan"), "–"), (3.18628, "3.186"), (8, "8"), ("fa3", "fa3"), (False, "False")],
)
def test_a_setting_that_is_open_is_a_dash(value, told):
    assert setting_text(value) == told


def test_failures_are_told_once_per_error_with_their_number():
    points = [point(), point("vllm", "failed", "no room"), point("random", "failed", "no room")]
    assert list(failures(result(points))) == ["2 of 3 points failed: no room"]


def test_a_combination_without_capacity_is_told_with_its_settings_and_reason():
    capacity = [
        point(rate_per_s=3.0, kernel="fa2"),
        point(rate_per_s=None, kernel="fa3", error="the SLO is not met anywhere"),
    ]
    assert list(failures(result([point()], capacity, "rate"))) == ["l4, kernel fa3: the SLO is not met anywhere"]


def test_runs_shorter_than_three_latencies_are_told():
    short, long = point(makespan_s=29.0, e2e_p99_s=10.0), point(makespan_s=31.0, e2e_p99_s=10.0)
    assert list(short_runs(result([long]))) == []
    [line] = short_runs(result([long, short]))
    assert line.startswith("1 of 2 combinations: the run takes less than 3 times its P99 E2E")


def test_a_combination_without_capacity_has_no_run_to_be_short():
    none = point(error="the SLO is not met anywhere", makespan_s=None, e2e_p99_s=None)
    assert list(short_runs(result([point()], [none], "rate"))) == []


def test_requests_that_did_not_finish_are_told_with_the_worst_combination():
    whole, partly, none = (
        point(policy, requests_finished=finished, requests_total=20)
        for policy, finished in (("a", 20), ("b", 7), ("c", 0))
    )
    assert list(unfinished(result([whole]))) == []
    assert list(unfinished(result([whole, partly, none]))) == [
        "2 of 3 combinations did not finish every request; fewest: c, 0 of 20. Latencies are of those that finished"
    ]
