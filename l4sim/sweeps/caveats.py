"""What qualifies the figures of a sweep: points that failed, requests that did not finish, runs that were too short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from l4sim.results.changes_text import SHORT_RUN
from l4sim.sweeps.columns import setting_text
from l4sim.sweeps.tables import SweepTables


def failures(tables: SweepTables) -> Iterator[str]:
    """One line per error with the number of points that failed by it; then one per combination without a capacity."""
    for error, failed in tables.failures.groupby("error", sort=False):
        yield f"{len(failed):,} of {len(tables.points):,} points failed: {error}"
    if tables.capacity is not None:
        for row in tables.capacity[~tables.found].to_dict("records"):
            yield f"{_combination(tables, row)}: {row['error']}"


def unfinished(tables: SweepTables) -> Iterator[str]:
    """One line if requests of some combination did not finish; else none."""
    rows = tables.answers[tables.found].to_dict("records")
    missing = [row for row in rows if row["requests_finished"] < row["requests_total"]]
    if missing:
        worst = min(missing, key=lambda row: float(row["requests_finished"]) / float(row["requests_total"]))
        yield (
            f"{len(missing):,} of {len(rows):,} combinations did not finish every request; fewest: "
            f"{_combination(tables, worst)}, {worst['requests_finished']:,.10g} of {worst['requests_total']:,.10g}. "
            "Latencies are of those that finished"
        )


def short_runs(tables: SweepTables) -> Iterator[str]:
    """One line if there are runs shorter than `SHORT_RUN` times their P99 E2E latency; else none."""
    rows = tables.answers[tables.found].to_dict("records")
    short = [row for row in rows if row["makespan_s"] < SHORT_RUN * row["e2e_p99_s"]]
    if short:
        yield (
            f"{len(short):,} of {len(rows):,} combinations: the run takes less than {SHORT_RUN} times its P99 E2E; "
            "longer traces would give other figures"
        )


def _combination(tables: SweepTables, row: Mapping[Any, Any]) -> str:
    policy, *others = (name for name in tables.varied() if name != tables.searched)
    return ", ".join([str(row[policy]), *(f"{name} {setting_text(row[name])}" for name in others)])
