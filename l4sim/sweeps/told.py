"""What a sweep comes to, for print and for its report: figures, failures, doubts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from l4sim.results.report import precise
from l4sim.sweeps.result import SweepResult

# A run whose makespan is under so many P99 E2E latencies is mostly its beginning and its end (ours).
SHORT_RUN = 3


class Column(NamedTuple):
    """A figure of a sweep's rows and how it is told."""

    name: str
    """With its unit."""
    header: str
    """The same in lines so short that all columns fit a terminal."""
    figure: str
    scale: float


COLUMNS = (
    Column("TTFT P99 (s)", "TTFT\nP99\ns", "ttft_p99_s", 1),
    Column("TPOT P99 (ms)", "TPOT\nP99\nms", "tpot_p99_s", 1e3),
    Column("norm. mean (ms)", "norm.\nmean\nms", "normalized_latency_mean_s", 1e3),
    Column("output tokens/s", "output\ntokens\n/s", "throughput_tokens_per_s", 1),
    Column("in SLO (%)", "in\nSLO\n%", "slo_attainment", 100),
    Column("goodput (requests/s)", "good-\nput\n/s", "goodput_requests_per_s", 1),
    Column("USD/10⁶ tokens", "USD\n/10⁶\ntokens", "usd_per_million_output_tokens", 1),
)


def figure_text(row: Mapping[Any, Any], column: Column) -> tuple[str, str]:
    """A row's figure to three digits, and half its confidence interval as ``±…``; that is empty if it has none."""
    half = row.get(f"{column.figure}_ci95", float("nan"))
    text = precise(column.scale * row[column.figure])
    decimals = len(text.partition(".")[2])
    return text, "" if half != half else f"±{column.scale * half:,.{decimals}f}"


def setting_text(value: Any) -> str:
    """A setting's value; a dash for one that is left open, and for a capacity that was not found."""
    if value is None or value != value:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def failures(result: SweepResult) -> Iterator[str]:
    """A line per error, and how many points it struck; then one per combination without a capacity."""
    for error, failed in result.failures.groupby("error", sort=False):
        yield f"{len(failed):,} of {len(result.points):,} points failed: {error}"
    if result.capacity is not None:
        for row in result.capacity[~result.found].to_dict("records"):
            yield f"{_combination(result, row)}: {row['error']}"


def unfinished(result: SweepResult) -> Iterator[str]:
    """A line if not every request finished everywhere."""
    rows = result.told[result.found].to_dict("records")
    missing = [row for row in rows if row["requests_finished"] < row["requests_total"]]
    if missing:
        worst = min(missing, key=lambda row: float(row["requests_finished"]) / float(row["requests_total"]))
        yield (
            f"{len(missing):,} of {len(rows):,} combinations did not finish every request; fewest: "
            f"{_combination(result, worst)}, {worst['requests_finished']:,.10g} of {worst['requests_total']:,.10g}. "
            "Latencies are of those that finished"
        )


def short_runs(result: SweepResult) -> Iterator[str]:
    """A line if there are runs too short for their queues to show what they would grow to."""
    rows = result.told[result.found].to_dict("records")
    short = [row for row in rows if row["makespan_s"] < SHORT_RUN * row["e2e_p99_s"]]
    if short:
        yield (
            f"{len(short):,} of {len(rows):,} combinations: the run takes less than {SHORT_RUN} times its P99 E2E; "
            "longer traces would give other figures"
        )


def _combination(result: SweepResult, row: Mapping[Any, Any]) -> str:
    policy, *others = (name for name in result.varied() if name != result.searched)
    return ", ".join([str(row[policy]), *(f"{name} {setting_text(row[name])}" for name in others)])
