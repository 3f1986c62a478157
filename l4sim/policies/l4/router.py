"""L4's dispatch: the stage of the request's length, and in it the least loaded instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from l4sim.policies.l4.load import load_of
from l4sim.policies.l4.messages import Boundary
from l4sim.policies.l4.plan import Plan
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.views import InstanceView, RequestView


class L4Router:
    """Routes a request by its current length."""

    def __init__(self, plan: Plan) -> None:
        self._ranges = Ranges(plan)
        self._positions: dict[int, int] = {}

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded instance of the request's stage."""
        if len(self._positions) != len(instances):
            self._learn(instances)
        stage = self._ranges.stage_for(request.context_tokens)
        positions = [self._positions[member] for member in self._ranges.members(stage)]
        return min(positions, key=lambda position: load_of(instances[position]))

    def _learn(self, instances: Sequence[InstanceView]) -> None:
        """Instances have come up, or one has gone."""
        positions = {view.instance: position for position, view in enumerate(instances)}
        for gone in self._positions.keys() - positions.keys():
            self._ranges.remove(gone)
        self._positions = positions

    def receive(self, sender: int, message: Any, now_s: float) -> None:
        """Take over a boundary that has moved."""
        if isinstance(message, Boundary):
            self._ranges.apply(message)
