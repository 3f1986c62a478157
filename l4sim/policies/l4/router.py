"""L4's dispatch: the stage of the request's length, and in it the least loaded instance.

Two exceptions, both ours. A request goes where its prefix lives if that is worth it (`affinity`). And it *spills over*
to another stage where even the least loaded instance of its own would do and suffer at least `SPILL` times the harm
(`l4sim.policies.harm`): a burst of one length waits for no boundary, and for no bid, to be moved. In a stage above, a
prompt as long as the stage's shortest is reckoned with in place of the request's own, so that short requests do not
fill a stage for long ones whenever it is quiet.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.policies.harm import harm_tokens
from l4sim.policies.l4.affinity import Affinity
from l4sim.policies.l4.load import load_of
from l4sim.policies.l4.stage_router import StageRouter
from l4sim.policies.plan import Plan
from l4sim.policies.views import InstanceView, RequestView

SPILL = 1.5
"""How many times the harm elsewhere it takes to leave the stage of one's length."""


class L4Router(StageRouter):
    """Routes a request by its current length."""

    def __init__(
        self, plan: Plan, affinity: Affinity | None = None, *, spill: bool = True, batches: Sequence[float] = ()
    ) -> None:
        """``affinity``: None to look at lengths alone. ``spill``: whether requests may spill over to other stages."""
        super().__init__(plan, batches)
        self._affinity = affinity
        self._spill = spill

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded instance of the request's stage, unless it spills over or follows its prefix.

        Source of the former: the paper; of both exceptions: ours.
        """
        if len(self._positions) != len(instances):
            self._learn(instances)
        stage = self.ranges.stage_for(request.context_tokens)
        position = self._least_loaded(stage, instances)
        if self._spill:
            position = self._spilled(stage, position, request.context_tokens, instances)
        if self._affinity is None or not request.prefix_ids:
            return position
        holder, cached_tokens = self._affinity.holder(request.prefix_ids)
        held_at = self._positions.get(holder)
        if held_at is not None and held_at != position:
            price = self._affinity.price
            if price(request, instances[held_at], cached_tokens) < price(request, instances[position], 0):
                position = held_at
        self._affinity.sent(request.prefix_ids, instances[position].instance)
        return position

    def _least_loaded(self, stage: int, instances: Sequence[InstanceView]) -> int:
        positions = [self._positions[member] for member in self.ranges.members(stage)]
        return min(positions, key=lambda position: load_of(instances[position]))

    def _spilled(self, stage: int, own: int, context_tokens: int, instances: Sequence[InstanceView]) -> int:
        """The position in another stage that is so much better than ``own``, the best in this one, else ``own``."""
        bar = harm_tokens(instances[own], context_tokens) / SPILL
        position = own
        for other in range(len(self.ranges)):
            expected_tokens = max(context_tokens, self.ranges.range_of(other)[0])
            if other == stage or expected_tokens >= bar or not self.ranges.members(other):
                continue
            candidate = self._least_loaded(other, instances)
            harm = harm_tokens(instances[candidate], expected_tokens)
            if harm < bar:
                position, bar = candidate, harm
        return position
