"""The partition: stage boundaries and instances per stage, by dynamic programming over length buckets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.model import CostModel
from l4sim.errors import InputError
from l4sim.policies.l4.demand import Demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.qoe import Capacity, StageTable, stage_table
from l4sim.policies.plan import Plan, Stage

FloatArray = NDArray[np.float64]

_LEAST_SHARE = 0.003
"""A bucket with less than this share of prompts and of decoding is not worth a boundary of its own."""
_BLOCK = 128
"""Rows of the DP's tables that are worked on at once: few enough to stay in cache."""


@dataclass(frozen=True, slots=True)
class StageForecast:
    """What the quality model expects of one planned stage."""

    load: float
    """Over what the stage can carry; at 1 and above it cannot."""
    batch: float
    tpot_s: float
    ttft_s: float
    """Mean over the requests whose prompt ends in the stage; NaN if none does."""
    prompts_per_s: float
    tokens_per_s: float
    cost: float
    """The stage's share of the objective; infinite where overloaded."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A plan and what is expected of it."""

    plan: Plan
    forecasts: tuple[StageForecast, ...]
    objective: Objective
    value: float
    """The objective, to be small: seconds per token, seconds, or the share of requests that miss their SLO; infinite if
    infeasible."""
    load: float
    """The fullest stage's."""
    least_load: float | None = None
    """The fullest stage's of the least overloaded plan, where none is feasible."""

    @property
    def feasible(self) -> bool:
        """Whether every stage carries its load."""
        return self.load < 1


def partition(
    demand: Demand,
    cost: CostModel,
    capacity: Capacity,
    instances: int,
    *,
    objective: Objective | None = None,
    stages: int | None = None,
) -> Partition:
    """The plan of least expected cost, with ``stages`` stages if given.

    Exact over all ways to cut the buckets into ranges and to divide the instances among them: f(j, n), the least cost
    of the first ``j`` buckets with ``n`` instances, is the least over i < j and m <= n of f(i, n - m) + cost(i, j, m).
    Only stages that carry their load count, unless no plan of such stages exists; the same recurrence with the larger
    load in place of the sum then says by how much the load is too much. Recurrence: ours (the paper's is not public).

    Raises:
        InputError: more stages than instances or useful boundaries allow.
    """
    planner = _Planner(demand, cost, capacity, instances, objective or Objective())
    return planner.best(stages)


def runner_ups(
    demand: Demand,
    cost: CostModel,
    capacity: Capacity,
    instances: int,
    *,
    than: Partition,
    most: int = 4,
) -> tuple[Partition, ...]:
    """The best plans with other numbers of stages than ``than`` has, for its objective, the best first."""
    planner = _Planner(demand, cost, capacity, instances, than.objective)
    counts = range(1, min(len(than.plan.stages) + 2, planner.most_stages) + 1)
    others = [planner.best(count) for count in counts if count != len(than.plan.stages)]
    return tuple(sorted(others, key=lambda made: (made.value, made.load))[:most])


class _Planner:
    """Tables of one planning problem."""

    def __init__(
        self, demand: Demand, cost: CostModel, capacity: Capacity, instances: int, objective: Objective
    ) -> None:
        self._demand = demand
        self._instances = instances
        self._objective = objective
        self._cuts = useful_cuts(demand)
        count = len(self._cuts)
        self._row = {pair: row for row, pair in enumerate((i, j) for j in range(count) for i in range(j))}
        ranges = tuple((self._cuts[i], self._cuts[j]) for i, j in self._row)
        self._table = stage_table(demand, cost, capacity, ranges, instances)
        self._costs = objective.costs(self._table, demand)
        self._carried = np.where(self._table.load < 1, self._costs, np.inf)

    @property
    def most_stages(self) -> int:
        return min(len(self._cuts) - 1, self._instances)

    def best(self, stages: int | None) -> Partition:
        if stages is not None and not 1 <= stages <= self.most_stages:
            raise InputError(
                f"{stages} stages: {self._instances} instances and {len(self._cuts) - 1} useful ranges of lengths "
                f"accept 1 to {self.most_stages}"
            )
        ranges = len(self._cuts) - 1
        found = solve(self._carried, ranges, self._instances, np.add, stages)
        if found is not None:
            return self._read(found)
        found = solve(self._costs, ranges, self._instances, np.add, stages)
        least = solve(self._table.load, ranges, self._instances, np.maximum, stages)
        assert found is not None
        assert least is not None
        return replace(self._read(found), least_load=self._read(least).load)

    def _read(self, choice: list[tuple[int, int, int]]) -> Partition:
        edges = self._demand.edges_tokens
        stages: list[Stage] = []
        used = 0
        for i, j, m in choice:
            lo, hi = int(edges[self._cuts[i]]), int(edges[self._cuts[j]])
            stages.append(Stage(lo, hi, tuple(range(used, used + m))))
            used += m
        rows = [self._row[i, j] for i, j, _ in choice]
        return _expected(Plan(tuple(stages)), rows, self._table, self._carried, self._demand, self._objective)


def forecast(
    plan: Plan, demand: Demand, cost: CostModel, capacity: Capacity, objective: Objective | None = None
) -> Partition:
    """What is to be expected of a plan whose boundaries are edges of the demand's buckets."""
    objective = objective or Objective()
    cuts = [0, *(int(np.searchsorted(demand.edges_tokens, stage.hi_tokens)) for stage in plan.stages)]
    most = max(len(stage.instances) for stage in plan.stages)
    table = stage_table(demand, cost, capacity, tuple(pairwise(cuts)), most)
    costs = np.where(table.load < 1, objective.costs(table, demand), np.inf)
    return _expected(plan, range(len(plan.stages)), table, costs, demand, objective)


def _expected(
    plan: Plan, rows: Sequence[int], table: StageTable, costs: FloatArray, demand: Demand, objective: Objective
) -> Partition:
    """A plan with the expectations in the table's rows, one per stage; ``costs`` are infinite where overloaded."""
    forecasts = []
    ttft_sums = table.ttft_sums(demand.arrivals_per_s)
    for stage, row in zip(plan.stages, rows, strict=True):
        at = row, len(stage.instances) - 1
        first, last = table.ranges[row]
        prompts_per_s = float(demand.arrivals_per_s[first:last].sum())
        forecasts.append(
            StageForecast(
                float(table.load[at]),
                float(table.batch[at]),
                float(table.tpot_s[at]),
                float(ttft_sums[at]) / prompts_per_s if prompts_per_s > 0 else float("nan"),
                prompts_per_s,
                float(demand.decode_tokens_per_s[first:last].sum()),
                float(costs[at]),
            )
        )
    value = sum(forecast.cost for forecast in forecasts)
    return Partition(plan, tuple(forecasts), objective, value, max(forecast.load for forecast in forecasts))


def useful_cuts(demand: Demand) -> list[int]:
    """Bucket numbers where a stage may begin or end: between buckets that hold a share worth telling apart."""
    prompts = demand.arrivals_per_s / demand.requests_per_s
    # Answers of one token each are all prefill.
    decoding = demand.decode_tokens_per_s / max(demand.decode_tokens_per_s.sum(), 1e-300)
    cuts = [0]
    since = 0.0
    for bucket, share in enumerate(np.maximum(prompts, decoding).tolist()):
        since += share
        if since >= _LEAST_SHARE:
            cuts.append(bucket + 1)
            since = 0.0
    cuts[-1 if len(cuts) > 1 else len(cuts) :] = [len(prompts)]
    return cuts


def solve(
    costs: FloatArray, ranges: int, instances: int, join: np.ufunc, stages: int | None = None
) -> list[tuple[int, int, int]] | None:
    """The cheapest plan as (first cut, last cut, instances) per stage; None if every plan costs infinitely much.

    ``costs`` has the shape ``[pairs of cuts, instances]``, pairs (i, j) in order of j, then i. ``join`` says how stages
    make a total: `numpy.add`, or `numpy.maximum` for the worst stage. ``stages`` is the number of stages, any if None.
    """
    layers = 1 if stages is None else stages
    # best[s][j]: totals by instances for the first j ranges, in s stages; a single layer where their number is free.
    start = np.full((ranges + 1, instances + 1), np.inf)
    start[0, 0] = 0.0
    best = [start]
    for _ in range(layers):
        before = best[-1]
        after = start.copy() if stages is None else np.full_like(start, np.inf)
        for j in range(1, ranges + 1):
            for i in range(j):
                totals = _shared_out((after if stages is None else before)[i], _row(costs, i, j), join)
                np.minimum(after[j], totals, out=after[j])
        best.append(after)
    if not np.isfinite(best[-1][ranges, instances]):
        return None
    return list(_choices(best, costs, ranges, instances, join, stages is None))[::-1]


def _row(costs: FloatArray, i: int, j: int) -> FloatArray:
    row: FloatArray = costs[j * (j - 1) // 2 + i]
    return row


def _shared_out(before: FloatArray, cost: FloatArray, join: np.ufunc) -> FloatArray:
    """Least totals with one stage more, by number of instances n: over m, join(before[n - m], cost[m - 1])."""
    totals = np.full_like(before, np.inf)
    possible, affordable = np.flatnonzero(np.isfinite(before)), np.flatnonzero(np.isfinite(cost))
    if not len(possible) or not len(affordable) or possible[0] + affordable[0] >= len(cost):
        return totals
    # Neither the stages before nor this one can do with fewer instances than these.
    others, fewest = int(possible[0]), int(affordable[0]) + 1
    rows = len(cost) + 1 - others - fewest
    padded = np.concatenate((np.full(rows - 1, np.inf), before[others : others + rows]))
    windows = np.lib.stride_tricks.sliding_window_view(padded, rows)
    reverse = cost[fewest - 1 : fewest - 1 + rows][::-1]
    for low in range(0, rows, _BLOCK):
        high = min(low + _BLOCK, rows)
        # None of these rows shares out more than ``high`` instances: the columns before are all infinite.
        shares = join(windows[low:high, rows - high :], reverse[rows - high :])
        totals[others + fewest + low : others + fewest + high] = shares.min(axis=1)
    return totals


def _choices(
    best: list[FloatArray], costs: FloatArray, ranges: int, instances: int, join: np.ufunc, free: bool
) -> Iterator[tuple[int, int, int]]:
    """The stages of the best plan from the last to the first, found again from the totals."""
    layer, j, n = len(best) - 1, ranges, instances
    while j > 0:
        layer -= not free
        before = best[layer]
        m = np.arange(1, n + 1)
        options = [join(before[i, n - m], _row(costs, i, j)[:n]) for i in range(j)]
        i, fewest = divmod(int(np.argmin(options)), n)
        yield i, j, fewest + 1
        j, n = i, n - fewest - 1
