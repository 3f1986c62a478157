"""What a plan is chosen for: a cost that adds up over its stages."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.policies.l4.demand import Demand
from l4sim.policies.l4.qoe import StageTable, entering_sums, handover_s, range_sums

FloatArray = NDArray[np.float64]

OBJECTIVES = ("normalized-latency", "e2e", "slo")


@dataclass(frozen=True, slots=True)
class Objective:
    """What is to be small: mean normalized latency, mean E2E latency, or the share of requests that miss their SLO.

    Raises:
        InputError: no such objective, or limits that it does not take.
    """

    name: str = "normalized-latency"
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise InputError(f"no objective '{self.name}': accepted are {', '.join(OBJECTIVES)}")
        limits = [limit for limit in (self.ttft_slo_s, self.tpot_slo_s) if limit is not None]
        if bool(limits) != (self.name == "slo"):
            raise InputError(f"objective '{self.name}': a limit on TTFT or TPOT is for 'slo', which needs one")
        if any(limit <= 0 for limit in limits):
            raise InputError("objective 'slo': a limit must be above 0 seconds")

    def costs(self, table: StageTable, demand: Demand) -> FloatArray:
        """Each stage's share of the objective: seconds, seconds per token or misses; shape ``[p, M]``."""
        if self.name == "normalized-latency":
            costs = _latency(
                table,
                demand.arrival_weights,
                demand.decode_weights,
                entering_sums(demand.crossing_weights, table.ranges),
            )
        elif self.name == "e2e":
            costs = _latency(
                table,
                demand.arrivals_per_s,
                demand.decode_tokens_per_s,
                entering_sums(demand.crossings_per_s, table.ranges),
            )
        else:
            costs = _misses(table, demand, self.ttft_slo_s, self.tpot_slo_s)
        return costs / demand.requests_per_s


def _latency(table: StageTable, arrivals: FloatArray, tokens: FloatArray, entering: FloatArray) -> FloatArray:
    """TTFT, TPOT and handovers, each times its weight."""
    return np.asarray(
        table.ttft_sums(arrivals) + range_sums(tokens, table.ranges) * table.tpot_s + entering * handover_s(table)
    )


def _misses(table: StageTable, demand: Demand, ttft_slo_s: float | None, tpot_slo_s: float | None) -> FloatArray:
    """Requests per second that miss a limit; who misses both counts twice, so that stages add up.

    A wait is nought or exponential. A request's TPOT in a stage varies with the batch that it meets, which varies as
    the square root of its mean does; the share of its tokens in the stage is what the stage answers for.
    """
    misses = np.zeros_like(table.load)
    if ttft_slo_s is not None:
        mean_s = table.wait_s / np.maximum(table.wait_probability, 1e-12)
        for bucket in np.flatnonzero(demand.arrivals_per_s > 0).tolist():
            rows = [row for row, (first, last) in enumerate(table.ranges) if first <= bucket < last]
            for cached, share in enumerate((1 - table.cached[rows], table.cached[rows])):
                alone_s = table.prefills.seconds[cached, bucket]
                spare_s = ttft_slo_s - alone_s - table.prefills.chunks[cached, bucket] * table.mixed_s[rows]
                late = table.wait_probability[rows] * np.exp(-np.maximum(spare_s, 0) / np.maximum(mean_s[rows], 1e-12))
                misses[rows] += demand.arrivals_per_s[bucket] * share * np.where(spare_s > 0, late, 1.0)
    if tpot_slo_s is not None:
        spread_s = table.tpot_s * (0.02 + table.mixed_s / table.tau_s / np.sqrt(np.maximum(table.batch, 1.0)))
        # A logistic distribution of this standard deviation stands for the normal one.
        away = (tpot_slo_s - table.tpot_s) / (spread_s * sqrt(3) / pi)
        misses += range_sums(demand.decode_weights, table.ranges) / (1 + np.exp(np.clip(away, -500, 500)))
    return misses
