"""What qualifies the figures of a sweep."""

from __future__ import annotations

import pandas as pd

from l4sim.sweeps.caveats import failures, short_runs, unfinished
from l4sim.sweeps.tables import SweepTables


def tables(points, capacity=None, search=None):
    table = pd.DataFrame(points)
    return SweepTables(table, table, None if capacity is None else pd.DataFrame(capacity), {}, None, search, None)


def point(policy="l4", status="done", error="", **more):
    return {"policy": policy, "status": status, "error": error, **more}


def test_failures_are_listed_once_per_error_with_their_number():
    points = [point(), point("least-harm", "failed", "no room"), point("random", "failed", "no room")]
    assert list(failures(tables(points))) == ["2 of 3 points failed: no room"]


def test_a_combination_without_capacity_is_listed_with_its_settings_and_reason():
    capacity = [
        point(rate_per_s=3.0, kernel="fa2"),
        point(rate_per_s=None, kernel="fa3", error="the SLO is not met anywhere"),
    ]
    assert list(failures(tables([point()], capacity, "rate"))) == ["l4, kernel fa3: the SLO is not met anywhere"]


def test_runs_shorter_than_three_latencies_are_named():
    short, long = point(makespan_s=29.0, e2e_p99_s=10.0), point(makespan_s=31.0, e2e_p99_s=10.0)
    assert list(short_runs(tables([long]))) == []
    [line] = short_runs(tables([long, short]))
    assert line.startswith("1 of 2 combinations: the run takes less than 3 times its P99 E2E")


def test_a_combination_without_capacity_has_no_run_to_be_short():
    none = point(error="the SLO is not met anywhere", makespan_s=None, e2e_p99_s=None)
    assert list(short_runs(tables([point()], [none], "rate"))) == []


def test_requests_that_did_not_finish_are_counted_with_the_worst_combination():
    whole, partly, none = (
        point(policy, requests_finished=finished, requests_total=20)
        for policy, finished in (("a", 20), ("b", 7), ("c", 0))
    )
    assert list(unfinished(tables([whole]))) == []
    assert list(unfinished(tables([whole, partly, none]))) == [
        "2 of 3 combinations did not finish every request; fewest: c, 0 of 20. Latencies are of those that finished"
    ]
