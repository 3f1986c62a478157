"""The partition: stage boundaries and instances per stage, by dynamic programming over length buckets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.model import CostModel
from l4sim.policies.l4.demand import Demand
from l4sim.policies.l4.plan import Plan, Stage
from l4sim.policies.l4.qoe import Capacity, StageModel, StageQuality

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StageForecast:
    """What the quality model expects of one planned stage."""

    overload: float
    batch: float
    tpot_s: float
    ttft_s: float
    normalized_latency_s: float
    """The stage's share of the mean normalized latency; infinite where overloaded."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A plan and what is expected of it."""

    plan: Plan
    forecasts: tuple[StageForecast, ...]
    normalized_latency_s: float
    """Expected mean over all requests (the objective); infinite if infeasible."""
    feasible: bool
    """Whether every stage carries its load."""


def partition(
    demand: Demand, cost: CostModel, capacity: Capacity, instances: int, *, handover_s: float = 0.05
) -> Partition:
    """The plan with the least expected mean normalized latency; if none carries the load, the least overloaded one.

    Exact over all ways to cut the buckets into ranges and to share out the instances: f(j, n), the best for the first
    ``j`` buckets with ``n`` instances, is the least over i < j and m <= n of f(i, n - m) + quality(i, j, m). An
    overloaded stage counts as the square of its overload times a value that no feasible plan reaches, so that the least
    overloaded plan wins where none is feasible. Recurrence: ours (the paper's is not public).
    """
    model = StageModel(demand, cost, capacity, handover_s)
    cuts = _useful_cuts(demand)
    table: dict[tuple[int, int], StageQuality] = {
        (i, j): model.quality(first, last, instances)
        for i, first in enumerate(cuts)
        for j, last in enumerate(cuts[i + 1 :], start=i + 1)
    }
    finite = [q.latency_weight[np.isfinite(q.latency_weight)] for q in table.values()]
    penalty = 1e6 * (1.0 + sum(float(values.max(initial=0.0)) for values in finite))
    best, choice = _solve({key: _charged(q, penalty) for key, q in table.items()}, len(cuts) - 1, instances)
    return _read(table, cuts, choice, demand, instances, feasible=best < penalty)


def _useful_cuts(demand: Demand) -> list[int]:
    """Bucket numbers where a stage may begin or end: edges with nothing on one side are of no use."""
    used = np.flatnonzero((demand.arrivals_per_s > 0) | (demand.decode_tokens_per_s > 0))
    return [0, *range(int(used[0]) + 1, int(used[-1]) + 1), len(demand.arrivals_per_s)]


def _charged(quality: StageQuality, penalty: float) -> FloatArray:
    overloaded = ~np.isfinite(quality.latency_weight)
    return np.where(overloaded, penalty * np.maximum(quality.overload, 1.0) ** 2, quality.latency_weight)


def _solve(
    costs: dict[tuple[int, int], FloatArray], cuts: int, instances: int
) -> tuple[float, list[list[tuple[int, int]]]]:
    """The least total, and for each (cut, instances) where its last stage begins and how many instances it has."""
    best = np.full((cuts + 1, instances + 1), np.inf)
    best[0, 0] = 0.0
    choice = [[(-1, 0)] * (instances + 1) for _ in range(cuts + 1)]
    for j in range(1, cuts + 1):
        for i in range(j):
            stage = costs[i, j]
            for m in range(1, instances + 1):
                totals = best[i, : instances + 1 - m] + stage[m - 1]
                better = totals < best[j, m:]
                for n in np.flatnonzero(better).tolist():
                    best[j, m + n] = totals[n]
                    choice[j][m + n] = (i, m)
    return float(best[cuts, instances]), choice


def _read(
    table: dict[tuple[int, int], StageQuality],
    cuts: list[int],
    choice: list[list[tuple[int, int]]],
    demand: Demand,
    instances: int,
    *,
    feasible: bool,
) -> Partition:
    j, n = len(cuts) - 1, instances
    stages: list[Stage] = []
    forecasts: list[StageForecast] = []
    while j > 0:
        i, m = choice[j][n]
        quality = table[i, j]
        edges = demand.edges_tokens
        stages.append(Stage(int(edges[cuts[i]]), int(edges[cuts[j]]), tuple(range(n - m, n))))
        forecasts.append(
            StageForecast(
                float(quality.overload[m - 1]),
                float(quality.batch[m - 1]),
                float(quality.tpot_s[m - 1]),
                float(quality.ttft_s[m - 1]),
                float(quality.latency_weight[m - 1]) / demand.requests_per_s,
            )
        )
        j, n = i, n - m
    forecasts.reverse()
    return Partition(
        Plan(tuple(reversed(stages))),
        tuple(forecasts),
        sum(forecast.normalized_latency_s for forecast in forecasts),
        feasible,
    )
