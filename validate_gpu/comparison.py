"""Measured against predicted, figure by figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# Where a summary holds each figure that is compared.
_FIGURES = {
    "throughput_tokens_per_s": ("throughput_tokens_per_s",),
    **{
        f"{latency}_{statistic}": (latency, statistic)
        for latency in ("ttft_s", "tpot_s", "e2e_s", "normalized_latency_s")
        for statistic in ("mean", "p99")
    },
}


class Figure(NamedTuple):
    """One figure of one policy."""

    metric: str
    measured: float
    predicted: float
    error_pct: float
    """(predicted - measured) / measured, in percent."""


def compare_figures(measured: Mapping[str, Any], predicted: Mapping[str, Any]) -> list[Figure]:
    """Throughput, and mean and P99 of the latencies, of two summaries (`l4sim.results.metrics`)."""
    figures = []
    for metric, path in _FIGURES.items():
        live, simulated = _look_up(measured, path), _look_up(predicted, path)
        error_pct = 100 * (simulated - live) / live if live else float("nan")
        figures.append(Figure(metric, live, simulated, error_pct))
    return figures


def _look_up(summary: Mapping[str, Any], path: tuple[str, ...]) -> float:
    value: Any = summary
    for key in path:
        value = value[key]
    return float(value)
