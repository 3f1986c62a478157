"""Planning anew while traffic changes, seldom and by a centre. **[ours: the paper leaves it open]**

Every agent tells a coordinator the lengths of requests that have ended with it, a sample a period. From those of the
last `PERIODS` the coordinator plans with the DP that made the first plan; if what is in force would cost more by
`LEAST_GAIN`, all agents and the front end are told the new plan. Until it has reached them, they go by the old one.

An instance that finds itself in another stage goes on serving what it has: what is now too long for it is handed over
one by one, what is too short grows or ends there. The number of stages stays, and as few instances as possible change
theirs; one that has joined counts to the stage that it joined, one that drains to none. The plan in force is told again
every period, so that a lost message costs one, and refinement goes on from it.
What prefix caches save of a prompt counts as they saved it on requests that have ended.
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
"""Periods that a plan is made from: longer than nearly all requests last, so that the long ones are among the ended."""
SAMPLE = 64
"""Lengths that a report holds at most."""
LEAST_REQUESTS = 200
"""Finished requests that tell a distribution of lengths."""
LEAST_GAIN = 0.05
"""What a new plan must save, relative to the one in force: less is noise, and moving has its price."""
_REPORTS_IN_S = 0.1
"""How long after the reports are sent the coordinator looks at them."""


class Ends:
    """An agent's part: a sample of the requests that have ended with it."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._sample: list[tuple[int, int, int]] = []
        self._count = 0

    def note(self, ended: Finished) -> None:
        """Take a request into the sample; each of a period has the same chance to be in it at its end."""
        self._count += 1
        lengths = (ended.prompt_tokens, ended.cached_tokens, ended.output_tokens)
        if len(self._sample) < SAMPLE:
            self._sample.append(lengths)
            return
        place = int(self._random.integers(self._count))
        if place < SAMPLE:
            self._sample[place] = lengths

    def report(self) -> Sequence[Instruction]:
        """Tell the coordinator, and begin anew."""
        message = Lengths(self._count, tuple(self._sample))
        self._sample, self._count = [], 0
        return (Send(COORDINATOR, message),)


@dataclass(frozen=True, slots=True)
class Planning:
    """What plans are made with."""

    cost: CostModel
    capacity: Capacity
    max_model_len: int


class Replanner:
    """The coordinator."""

    def __init__(self, first: Partition, planning: Planning) -> None:
        self._in_force = first
        self._planning = planning
        self._generation = 0
        self._ranges = Ranges(first.plan)
        """Who is in which stage now."""
        self._heard: list[Lengths] = []
        """What has come since the last look."""
        self._periods: deque[list[Lengths]] = deque(maxlen=PERIODS)

    def handle(self, stimulus: Stimulus, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        match stimulus:
            case Started():
                return (SetTimer(PERIOD_S + _REPORTS_IN_S, "look"),)
            case Received(_, Lengths() as lengths):
                self._heard.append(lengths)
            case InstanceUp(instance):
                self._ranges.add(instance)
            case PeerDied(instance) | Draining(instance) | Left(instance):
                self._ranges.remove(instance)
            case TimerFired():
                self._periods.append(self._heard)
                self._heard = []
                self._look()
                return (*self._tell(), SetTimer(PERIOD_S, "look"))
        return ()

    def _look(self) -> None:
        """Put a better plan in force, if there is one."""
        demand = self._demand()
        if demand is None:
            return
        cost, capacity, objective = self._planning.cost, self._planning.capacity, self._in_force.objective
        old = self._in_force.plan.stages
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
        self._in_force = replace(made, plan=Plan(stages))
        self._ranges.replace(self._in_force.plan)
        self._generation += 1

    def _demand(self) -> Demand | None:
        """Of the requests that have ended in the last periods; None if they are too few."""
        reports = [report for period in self._periods for report in period if report.requests]
        if len(self._periods) < PERIODS or sum(report.requests for report in reports) < LEAST_REQUESTS:
            return None
        lengths = np.array([row for report in reports for row in report.sample], dtype=np.int64)
        rates_per_s = np.concatenate(
            [np.full(len(report.sample), report.requests / len(report.sample)) for report in reports]
        ) / (PERIODS * PERIOD_S)
        prompt, cached, output = lengths.T
        kv_tokens = self._planning.capacity.kv_tokens
        # The boundaries in force are edges too, so that their plan can be told from a new one.
        bounds = [stage.hi_tokens for stage in self._in_force.plan.stages]
        edges = np.union1d(geometric_edges(self._planning.max_model_len), bounds)
        return measure_demand(prompt, output, rates_per_s, edges, prompt - cached, kv_tokens=kv_tokens)

    def _tell(self) -> Sequence[Instruction]:
        """The plan in force to everybody, unless it is still the first."""
        if not self._generation:
            return ()
        plan = self._in_force.plan
        news = NewPlan(self._generation, plan, tuple(forecast.batch for forecast in self._in_force.forecasts))
        living = [instance for stage in range(len(self._ranges)) for instance in self._ranges.members(stage)]
        return [Send(to, news) for to in (FRONT_END, *living)]


def _saves(made: Partition, kept: Partition) -> bool:
    """Whether the plan just made is worth leaving the one in force for."""
    if made.feasible and kept.feasible:
        return made.value < (1 - LEAST_GAIN) * kept.value
    return made.load < (1 - LEAST_GAIN) * kept.load
