"""A new plan when the traffic has changed, made seldom and by a coordinator. **[ours: the paper leaves it open]**

Once a period every agent sends the coordinator a sample of the requests that finished on its instance: their prompt,
cached and output tokens. From the samples of the last `PERIODS` periods the coordinator computes a plan with the same
dynamic program that made the first one. If the current plan is expected to cost more than the new one by at least
`LEAST_GAIN`, the new one becomes current, and the coordinator sends it to all agents and to the front end; until the
message arrives, each goes by the plan that it has.

An instance that finds itself in another stage keeps serving its requests. Those that are now too long for it are handed
over one by one; those that are too short stay until they grow into its range or finish. A new plan has as many stages
as the one before, and as few instances as possible change theirs. An instance that has joined is counted in the stage
that it joined; one that drains gets no place. The current plan is sent again every period, so that a lost message is
made up for, and refinement continues from its boundaries. How much of a prompt prefix caches save is taken from the
requests that finished.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from l4sim.cost.model import CostModel
from l4sim.errors import InputError
from l4sim.policies.agent import (
    COORDINATOR,
    FRONT_END,
    Draining,
    Finished,
    InstanceUp,
    Instruction,
    Left,
    PeerDied,
    Received,
    Send,
    SetTimer,
    Started,
    Stimulus,
    TimerFired,
)
from l4sim.policies.l4.demand import Demand, geometric_edges, measure_demand
from l4sim.policies.l4.messages import Lengths, NewPlan
from l4sim.policies.l4.partition import Partition, forecast, partition
from l4sim.policies.l4.qoe import Capacity
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.plan import Plan, Stage

PERIOD_S = 60.0
"""Between two reports, and two looks at the plan."""
PERIODS = 5
"""Periods that a plan is made from: longer than nearly all requests last, so that long ones are in the samples too."""
SAMPLE = 64
"""Most requests in one agent's sample."""
LEAST_REQUESTS = 200
"""Finished requests below which no plan is made: too few to estimate a distribution of lengths."""
LEAST_GAIN = 0.05
"""What a new plan must save, relative to the current one: less is noise, and a change of plan moves requests."""
_REPORTS_IN_S = 0.1
"""How long after the agents send their samples the coordinator reads them."""


class FinishedSample:
    """An agent's part: a uniform sample of the requests that finished on its instance in this period (a reservoir)."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._sample: list[tuple[int, int, int]] = []
        self._count = 0

    def add(self, finished: Finished) -> None:
        """Take a finished request into account; at the period's end each is in the sample with the same probability."""
        self._count += 1
        lengths = (finished.prompt_tokens, finished.cached_tokens, finished.output_tokens)
        if len(self._sample) < SAMPLE:
            self._sample.append(lengths)
            return
        place = int(self._random.integers(self._count))
        if place < SAMPLE:
            self._sample[place] = lengths

    def report(self) -> Sequence[Instruction]:
        """Send the sample to the coordinator, and begin the next one."""
        message = Lengths(self._count, tuple(self._sample))
        self._sample, self._count = [], 0
        return (Send(COORDINATOR, message),)


@dataclass(frozen=True, slots=True)
class Planning:
    """What plans are made with: the cost model, what an instance holds, and the longest context."""

    cost: CostModel
    capacity: Capacity
    max_model_len: int


class Replanner:
    """The coordinator."""

    def __init__(self, first: Partition, planning: Planning) -> None:
        self._current = first
        self._planning = planning
        self._generation = 0
        self._ranges = Ranges(first.plan)
        """Which instances are in which stage now."""
        self._samples: list[Lengths] = []
        """Received in this period."""
        self._periods: deque[list[Lengths]] = deque(maxlen=PERIODS)

    def handle(self, stimulus: Stimulus, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        match stimulus:
            case Started():
                return (SetTimer(PERIOD_S + _REPORTS_IN_S, "look"),)
            case Received(_, Lengths() as lengths):
                self._samples.append(lengths)
            case InstanceUp(instance):
                self._ranges.add(instance)
            case PeerDied(instance) | Draining(instance) | Left(instance):
                self._ranges.remove(instance)
            case TimerFired():
                self._periods.append(self._samples)
                self._samples = []
                self._replan()
                return (*self._announce(), SetTimer(PERIOD_S, "look"))
        return ()

    def _replan(self) -> None:
        """Adopt a new plan if it is enough better than the current one."""
        demand = self._demand()
        if demand is None:
            return
        cost, capacity, objective = self._planning.cost, self._planning.capacity, self._current.objective
        old = self._current.plan.stages
        members = [self._ranges.members(stage) for stage in range(len(old))]
        # Stages take their instances in this order, so that those in the middle of theirs stay where they are.
        living = [instance for stage in members for instance in stage]
        try:
            made = partition(demand, cost, capacity, len(living), objective=objective, stages=len(old))
        except InputError:
            # Fewer instances, or ranges that lengths fall into, than there are stages.
            return
        if all(members):
            kept = Plan(tuple(Stage(s.lo_tokens, s.hi_tokens, tuple(m)) for s, m in zip(old, members, strict=True)))
            if not _saves(made, forecast(kept, demand, cost, capacity, objective)):
                return
        stages = tuple(
            stage._replace(instances=tuple(living[place] for place in stage.instances)) for stage in made.plan.stages
        )
        self._current = replace(made, plan=Plan(stages))
        self._ranges.replace(self._current.plan)
        self._generation += 1

    def _demand(self) -> Demand | None:
        """The demand of the requests that finished in the last periods; None if they are too few."""
        reports = [report for period in self._periods for report in period if report.requests]
        if len(self._periods) < PERIODS or sum(report.requests for report in reports) < LEAST_REQUESTS:
            return None
        lengths = np.array([row for report in reports for row in report.sample], dtype=np.int64)
        rates_per_s = np.concatenate(
            [np.full(len(report.sample), report.requests / len(report.sample)) for report in reports]
        ) / (PERIODS * PERIOD_S)
        prompt, cached, output = lengths.T
        kv_tokens = self._planning.capacity.kv_tokens
        # The current boundaries are edges too, so that the current plan can be compared with a new one.
        bounds = [stage.hi_tokens for stage in self._current.plan.stages]
        edges = np.union1d(geometric_edges(self._planning.max_model_len), bounds)
        return measure_demand(prompt, output, rates_per_s, edges, prompt - cached, kv_tokens=kv_tokens)

    def _announce(self) -> Sequence[Instruction]:
        """Send the current plan to everybody, unless it is still the first, which all began with."""
        if not self._generation:
            return ()
        plan = self._current.plan
        news = NewPlan(self._generation, plan, tuple(forecast.batch for forecast in self._current.forecasts))
        living = [instance for stage in range(len(self._ranges)) for instance in self._ranges.members(stage)]
        return [Send(to, news) for to in (FRONT_END, *living)]


def _saves(made: Partition, kept: Partition) -> bool:
    """Whether the plan just made is enough better than the one kept."""
    if made.feasible and kept.feasible:
        return made.value < (1 - LEAST_GAIN) * kept.value
    return made.load < (1 - LEAST_GAIN) * kept.load
