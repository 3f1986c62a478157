"""What was measured beside what was predicted: latencies of a recorded run and of its replay."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.experiment import Setup
from l4sim.recordings.recording import RecordedRequests
from l4sim.results.run import Run

_METRICS = ("ttft_s", "tpot_s", "e2e_s")


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of the run, measured and predicted; seconds, or requests per second."""

    metric: str
    measured: float
    predicted: float
    error_pct: float
    """(predicted - measured) / measured, percent."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A recorded run against its replay."""

    figures: tuple[Figure, ...]
    """Of latencies."""
    throughput: Figure
    """Finished requests a second, from the first arrival to the last end."""
    requests: int
    preemptions: int
    setup: Setup
    kv_blocks_from: str
    """Where the number of KV blocks comes from."""
    run: Run
    assumptions: tuple[str, ...] = ()
    """What the instance has because the recording does not tell."""

    @property
    def all_figures(self) -> tuple[Figure, ...]:
        """Those of latencies, and throughput."""
        return (*self.figures, self.throughput)

    def beyond(self, tolerance_pct: float) -> tuple[Figure, ...]:
        """The figures whose error is larger than so many percent, or no number at all."""
        return tuple(figure for figure in self.figures if not abs(figure.error_pct) <= tolerance_pct)

    def to_json(self) -> dict[str, Any]:
        """Figures and what they were predicted with, as plain values."""
        return {
            "figures": [asdict(figure) for figure in self.figures],
            "throughput": asdict(self.throughput),
            "requests": self.requests,
            "preemptions": self.preemptions,
            "kv_blocks_from": self.kv_blocks_from,
            "assumptions": list(self.assumptions),
            "config": self.setup.describe(),
        }


def compare_latencies(recorded: RecordedRequests, run: Run) -> tuple[Figure, ...]:
    """Mean and P99 of TTFT, TPOT and E2E, seconds, in this order; a metric that nothing was measured of is left out.

    A request counts on both sides or on neither: one without a measured value is left out.
    """
    figures = []
    predicted_by_id = run.requests.set_index("request_id").loc[list(recorded.request_id)]
    for metric in _METRICS:
        known = np.isfinite(getattr(recorded, metric))
        measured, predicted = getattr(recorded, metric)[known], predicted_by_id[metric].to_numpy()[known]
        for statistic, compute in (("mean", np.nanmean), ("p99", _p99)):
            if known.any():
                figures.append(_figure(f"{metric}_{statistic}", float(compute(measured)), float(compute(predicted))))
    return tuple(figures)


def compare_throughput(recorded: RecordedRequests, run: Run) -> Figure:
    """Requests a second that were served to their end, on both sides those whose end was measured."""
    known = np.isfinite(recorded.e2e_s)
    predicted_s = run.requests.set_index("request_id").loc[list(recorded.request_id), "e2e_s"].to_numpy()
    measured, predicted = (
        int(known.sum()) / float((recorded.arrival_s + e2e_s)[known].max()) for e2e_s in (recorded.e2e_s, predicted_s)
    )
    return _figure("finished_per_s", measured, predicted)


def _figure(metric: str, measured: float, predicted: float) -> Figure:
    return Figure(metric, measured, predicted, 100 * (predicted - measured) / measured if measured else float("nan"))


def _p99(values: NDArray[np.float64]) -> float:
    """Linear interpolation, as the results' own percentiles."""
    return float(np.nanpercentile(values, 99))
