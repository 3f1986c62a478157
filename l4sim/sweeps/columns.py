"""The figures of a sweep that are printed and reported: their columns, and a figure or a setting as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from l4sim.results.numbers import precise


class Column(NamedTuple):
    """A column of figures as people read it."""

    name: str
    """With its unit."""
    header: str
    """The name in lines so short that all columns fit a terminal."""
    figure: str
    """The column of the sweep's tables."""
    scale: float
    """What the table's value is multiplied by to be in the unit of the name."""


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
    """A row's figure to three digits, and half its confidence interval as ``±…``, empty if there is none."""
    half = row.get(f"{column.figure}_ci95", float("nan"))
    text = precise(column.scale * row[column.figure])
    decimals = len(text.partition(".")[2])
    return text, "" if half != half else f"±{column.scale * half:,.{decimals}f}"


def setting_text(value: Any) -> str:
    """A setting's value; a dash for a setting left open, or a capacity that was not found."""
    if value is None or value != value:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
