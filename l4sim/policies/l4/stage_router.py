"""What L4's front end knows of the stages, whichever way it chooses among instances."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from l4sim.policies.agent import FleetStimulus, InstanceUp
from l4sim.policies.l4.messages import Boundary, NewPlan
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.refinement import GENERATION
from l4sim.policies.plan import Plan
from l4sim.policies.views import InstanceView, RequestView


class StageRouter(ABC):
    """The part of a router that follows plan, boundaries and members."""

    def __init__(self, plan: Plan, batches: Sequence[float] = ()) -> None:
        """``batches``: requests in flight per instance that the plan expects, by stage; agents of those that join are
        told them.
        """
        self.moves: list[tuple[float, int, int]] = []
        """Boundaries taken over: when, which stage's upper end, and to how many tokens."""
        self.ranges = Ranges(plan)
        self.generation = 0
        """Of the plan that it goes by."""
        self.batches = tuple(batches)
        """Requests in flight per instance that this plan expects, by stage."""
        self._positions: dict[int, int] = {}
        """Of the instances seen last, by number; empty where they are to be looked at again."""

    @abstractmethod
    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of the instance that a request goes to."""

    def _learn(self, instances: Sequence[InstanceView]) -> None:
        """These are not the instances seen last: some have gone or joined, or cannot serve this request."""
        self._positions = {view.instance: position for position, view in enumerate(instances)}
        self.ranges.see(self._positions)

    def follow(self, numbers: Sequence[int]) -> None:
        """Look at the instances again."""
        self._positions = {}

    def hear(self, stimulus: FleetStimulus, now_s: float) -> None:
        """Take notice of instances that join, and of those that have gone: stages are manned as the agents man them."""
        if isinstance(stimulus, InstanceUp):
            self.ranges.add(stimulus.instance)
        else:
            self.ranges.remove(stimulus.instance)
        self._positions = {}

    def receive(self, sender: int, message: Any, now_s: float) -> None:
        """Take over a boundary that has moved, or a new plan."""
        match message:
            case Boundary() if self.ranges.apply(message):
                self.moves.append((now_s, message.stage, self.ranges.bounds[message.stage]))
            case NewPlan() if message.generation > self.generation:
                self.generation = message.generation
                self.batches = message.batches
                self.ranges.replace(message.plan, message.generation * GENERATION)
                self.moves += [(now_s, stage, tokens) for stage, tokens in enumerate(self.ranges.bounds)]
                self._positions = {}
