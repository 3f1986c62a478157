"""Measured against predicted latencies, the noise of the measurement, and whether both rank the policies alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
STATISTICS = ("mean", "p50", "p90", "p99")
RANKED = (("ttft_s", "mean"), ("tpot_s", "mean"), ("e2e_s", "mean"), ("e2e_s", "p99"))
"""Figures that policies are ranked by."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one policy."""

    metric: str
    """A latency of `LATENCIES`, in seconds."""
    statistic: str
    measured: tuple[float, ...]
    """By repeat."""
    predicted: float

    @property
    def mean(self) -> float:
        """What was measured, over all repeats."""
        return float(np.mean(self.measured))

    @property
    def noise_pct(self) -> float:
        """The spread of the repeats, largest less smallest, in percent of their mean; NaN for one repeat."""
        if len(self.measured) < 2:
            return float("nan")
        return _percent(max(self.measured) - min(self.measured), self.mean)

    @property
    def error_pct(self) -> float:
        """(Predicted - measured) / measured, in percent; NaN where nothing was measured."""
        return _percent(self.predicted - self.mean, self.mean)


class Ranking(NamedTuple):
    """How two policies compare by one figure: how much larger it is under the second, in percent of the first's."""

    metric: str
    statistic: str
    first: str
    second: str
    measured_pct: float
    predicted_pct: float
    told_apart: bool
    """Whether all repeats of one lie below all of the other; a smaller difference may be noise."""

    @property
    def alike(self) -> bool:
        """Whether prediction and measurement put the same policy first."""
        return self.measured_pct * self.predicted_pct > 0


def compare_figures(measured: Sequence[Mapping[str, Any]], predicted: Mapping[str, Any]) -> list[Figure]:
    """Every statistic of every latency, from summaries (`l4sim.results.metrics.summarise`) of live runs and of one
    simulated."""
    return [
        Figure(
            metric,
            statistic,
            tuple(float(summary[metric][statistic]) for summary in measured),
            float(predicted[metric][statistic]),
        )
        for metric in LATENCIES
        for statistic in STATISTICS
    ]


def find_figure(figures: Sequence[Figure], metric: str, statistic: str) -> Figure:
    """One of a policy's figures."""
    return next(figure for figure in figures if (figure.metric, figure.statistic) == (metric, statistic))


def rank(figures: Mapping[str, Sequence[Figure]]) -> list[Ranking]:
    """All pairs of policies by all figures of `RANKED`; with one repeat no pair counts as different."""
    ranked = []
    for metric, statistic in RANKED:
        for first, second in combinations(figures, 2):
            one, other = (find_figure(figures[name], metric, statistic) for name in (first, second))
            apart = max(one.measured) < min(other.measured) or max(other.measured) < min(one.measured)
            ranked.append(
                Ranking(
                    metric,
                    statistic,
                    first,
                    second,
                    _percent(other.mean - one.mean, one.mean),
                    _percent(other.predicted - one.predicted, one.predicted),
                    apart and min(len(one.measured), len(other.measured)) > 1,
                )
            )
    return ranked


def _percent(difference: float, base: float) -> float:
    return 100 * difference / base if base else float("nan")
