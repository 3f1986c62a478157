"""L4's agent on one instance: handover, balance and refinement, each of which can be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from l4sim.policies.agent import (
    Crossed,
    Draining,
    Finished,
    InstanceUp,
    Instruction,
    Joined,
    Left,
    MigrationEnded,
    OwnView,
    PeerDied,
    Received,
    ReportFinished,
    SetTimer,
    Started,
    Stimulus,
    TimerFired,
    Watch,
)
from l4sim.policies.l4 import balance, refinement, replan
from l4sim.policies.l4.balance import Balance, Decide
from l4sim.policies.l4.handover import Choose, Handover, Retry
from l4sim.policies.l4.messages import (
    Ask,
    Bid,
    Boundary,
    Decline,
    NewPlan,
    Offer,
    Report,
    Slack,
    StageState,
    State,
    Summary,
)
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.refinement import Refinement
from l4sim.policies.l4.replan import FinishedSample
from l4sim.policies.l4.spare_capacity import BySpareCapacity


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of L4 beyond its plan."""

    handover: bool = True
    refinement: bool = True
    by_spare_capacity: bool = False
    """Whether boundaries are refined from lengths, queues and spare capacity, in place of counts."""
    within: bool = True
    """Balance within a stage."""
    across: bool = True
    """Balance across stages."""
    replan: bool = False
    """A new plan where traffic has changed; needs a `Replanner`."""


LEVELS: Mapping[str, Parts] = {
    "plan": Parts(handover=False, refinement=False, within=False, across=False),
    "handover": Parts(refinement=False, within=False, across=False),
    "refinement": Parts(within=False, across=False),
    "within": Parts(across=False),
    "across": Parts(),
    "replan": Parts(replan=True),
}
"""Ablations, each adding one part to the one before."""
PAPER = Parts(by_spare_capacity=True, replan=True)
"""What the paper says: a plan made anew at low frequency, boundaries refined between neighbours, bids, handover."""


class BidTime(NamedTuple):
    """Timer: time to bid."""


class RefineTime(NamedTuple):
    """Timer: time to refine."""


class ReportTime(NamedTuple):
    """Timer: time to report to the coordinator."""


class DrainTime(NamedTuple):
    """Timer: time to hand over more of what is on an instance that drains."""


DRAIN_EVERY_S = 0.1
"""Between two rounds of handing over on an instance that drains."""
LEAVE_EVERY_S = 0.1
"""Pause between two requests that a new plan has put into another stage, when they begin to be handed over."""


class L4Agent:
    """The agent of one instance."""

    def __init__(
        self,
        instance: int,
        ranges: Ranges,
        planned_batches: Sequence[float],
        *,
        parts: Parts | None = None,
        seed: int = 0,
        generation: int = 0,
    ) -> None:
        """``ranges``: its own copy, with the instance in a stage. ``planned_batches``: requests in flight per instance
        that the plan expects, by stage. ``generation``: of the plan that ``ranges`` goes by.
        """
        self._parts = parts or Parts()
        random = np.random.default_rng((seed, instance))
        self._instance = instance
        self._ranges = ranges
        self._handover = Handover(instance, self._ranges, random)
        self._balance = Balance(instance, self._ranges, random, within=self._parts.within, across=self._parts.across)
        refined_by = BySpareCapacity if self._parts.by_spare_capacity else Refinement
        self._refinement = refined_by(instance, self._ranges, planned_batches, random, generation)
        self._finished = FinishedSample(random)
        self._generation = generation
        self._drains = False
        # Agents that all began a period at once would all be busy at once.
        self._phase = float(random.random())

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        match stimulus:
            case Started():
                return self._start()
            case Crossed(request):
                if self._drains:
                    return ()
                _, hi = self._ranges.range_of(self._ranges.stage_of_instance(self._instance))
                # A longer one was placed here on purpose (for its prefix), or the boundary has moved below its length.
                return self._outgrown(request.request, own, now_s) if request.context_tokens <= hi else ()
            case Received(sender, message):
                return self._receive(sender, message, own, now_s)
            case TimerFired(name):
                return self._on_timer(name, own, now_s)
            case MigrationEnded(request, _, done, _):
                if self._balance.ended(request):
                    return ()
                return self._handover.ended(request, done)
            case Joined(request):
                self._handover.release(request)
                self._balance.joined(request, now_s)
            case InstanceUp(instance):
                self._ranges.add(instance)
            case Draining(instance) if instance == self._instance:
                return self._begin_to_drain(own)
            case PeerDied(instance) | Draining(instance) | Left(instance):
                self._ranges.remove(instance)
            case Finished():
                self._finished.add(stimulus)
        return ()

    def _start(self) -> Sequence[Instruction]:
        instructions: list[Instruction] = []
        instructions += self._watch()
        if self._parts.within or self._parts.across:
            instructions.append(SetTimer(self._phase * balance.PERIOD_S, BidTime()))
        if self._parts.refinement:
            instructions.append(SetTimer(self._phase * refinement.PERIOD_S, RefineTime()))
        if self._parts.replan:
            instructions += [ReportFinished(), SetTimer(replan.PERIOD_S, ReportTime())]
        return instructions

    def _watch(self) -> Sequence[Instruction]:
        if self._drains:
            return ()
        stage = self._ranges.stage_of_instance(self._instance)
        last = stage == len(self._ranges) - 1
        return (Watch(self._ranges.range_of(stage)[1]),) if self._parts.handover and not last else ()

    def _outgrown(self, request: int, own: OwnView, now_s: float) -> Sequence[Instruction]:
        settled_in_s = self._balance.settled_in_s(request, now_s)
        if settled_in_s > 0 and not self._drains:
            return (SetTimer(settled_in_s, Retry(request)),)
        return self._handover.begin(request, own)

    def _begin_to_drain(self, own: OwnView) -> Sequence[Instruction]:
        """Take nothing any more, and hand over what is here if handover is part of this L4."""
        self._drains = True
        self._ranges.remove(self._instance)
        return (Watch(None), *self._drain(own)) if self._parts.handover else ()

    def _drain(self, own: OwnView) -> Sequence[Instruction]:
        return (*self._handover.drain(own, self._balance.moves), SetTimer(DRAIN_EVERY_S, DrainTime()))

    def _receive(self, sender: int, message: object, own: OwnView, now_s: float) -> Sequence[Instruction]:
        match message:
            case Ask():
                return self._handover.answer(sender, message, own, now_s)
            case Offer():
                return self._handover.collect(sender, message)
            case Decline(request):
                self._handover.release(request)
            case Bid() if not self._drains:
                return self._balance.answer(sender, message, own, now_s)
            case Slack():
                self._balance.collect(sender, message)
            case Report() | State():
                self._refinement.reported(sender, message)
            case Summary() | StageState():
                self._refinement.summarised(message)
            case NewPlan():
                return self._adopt(message, own)
            case Boundary():
                if self._ranges.apply(message):
                    return (*self._watch(), *self._refinement.spread(message))
        return ()

    def _on_timer(self, name: object, own: OwnView, now_s: float) -> Sequence[Instruction]:
        match name:
            case Choose(request):
                return self._handover.choose(request)
            case Retry(request):
                return self._outgrown(request, own, now_s)
            case Decide(round_):
                return self._balance.decide(round_, own, now_s)
            case BidTime() | RefineTime() if self._drains:
                return ()
            case DrainTime():
                return self._drain(own)
            case BidTime():
                return (*self._balance.bid(own), SetTimer(balance.PERIOD_S, name))
            case ReportTime():
                return (*self._finished.report(), SetTimer(replan.PERIOD_S, name))
            case RefineTime():
                self._refinement.sample(own)
                before = self._ranges.bounds
                instructions = self._refinement.period()
                moved = self._watch() if self._ranges.bounds != before else ()
                return (*instructions, *moved, SetTimer(refinement.PERIOD_S, name))
        return ()

    def _adopt(self, news: NewPlan, own: OwnView) -> Sequence[Instruction]:
        """Go by a new plan: requests that are too long for the new stage leave it one after the other."""
        if news.generation <= self._generation:
            return ()
        self._generation = news.generation
        self._ranges.replace(news.plan, news.generation * refinement.GENERATION)
        if self._drains:
            return ()
        self._refinement.adopt(news.batches, news.generation)
        _, hi = self._ranges.range_of(self._ranges.stage_of_instance(self._instance))
        leaving = [request.request for request in own.decoding() if request.context_tokens > hi]
        timers = [SetTimer(LEAVE_EVERY_S * place, Retry(request)) for place, request in enumerate(leaving, start=1)]
        return (*(self._watch() or (Watch(None),)), *timers)
