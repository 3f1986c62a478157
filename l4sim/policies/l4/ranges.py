"""One holder's knowledge of the stages: their current boundaries and who is in them.

Every agent and the router has a copy of its own; messages keep the copies close. Whatever is lost or late, each copy by
itself always tiles [0, max]: it is a list of boundaries, read so that they never fall. And copies that have heard the
same boundaries agree, in whatever order and however often they heard them: of each boundary the greatest
(version, end) stands.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from l4sim.policies.l4.messages import Boundary
from l4sim.policies.plan import Plan


class Ranges:
    """The stages as one holder knows them."""

    def __init__(self, plan: Plan) -> None:
        self._dead: set[int] = set()
        self.replace(plan)

    def replace(self, plan: Plan, version: int = 0) -> None:
        """Go by another plan from now on, whose boundaries have this version."""
        self._max_tokens = plan.stages[-1].hi_tokens
        self._told_tokens = [stage.hi_tokens for stage in plan.stages[:-1]]
        self._versions = [version] * len(self._told_tokens)
        self._members = [[i for i in stage.instances if i not in self._dead] for stage in plan.stages]
        self._stage_of = {instance: n for n, stage in enumerate(plan.stages) for instance in stage.instances}
        self._bounds = list(self._told_tokens)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def bounds(self) -> Sequence[int]:
        """Upper ends of all stages but the last; they never fall from one to the next."""
        return self._bounds

    def boundary(self, stage: int) -> Boundary:
        """The upper end of a stage as it was told; the plan's has version 0."""
        return Boundary(stage, self._versions[stage], self._told_tokens[stage])

    def range_of(self, stage: int) -> tuple[int, int]:
        """A stage's current range [lo, hi) in tokens."""
        lo = self._bounds[stage - 1] if stage else 0
        return lo, self._bounds[stage] if stage < len(self._bounds) else self._max_tokens

    def stage_of_instance(self, instance: int) -> int:
        """The stage that an instance belongs to."""
        return self._stage_of[instance]

    def members(self, stage: int) -> Sequence[int]:
        """The living instances of a stage, which may be none."""
        return self._members[stage]

    def leader(self, stage: int) -> int | None:
        """The instance that speaks for a stage: its lowest living one."""
        return self._members[stage][0] if self._members[stage] else None

    def neighbour(self, stage: int, step: int) -> int | None:
        """The next stage above (``step`` 1) or below (-1) that has a living instance; None beyond the last."""
        stage += step
        while 0 <= stage < len(self._members):
            if self._members[stage]:
                return stage
            stage += step
        return None

    def stage_for(self, context_tokens: int) -> int:
        """The stage that serves a context length: the one whose range it is in, or, where that has nobody left, the
        next one above with a living instance, else the next one below.
        """
        stage = bisect_right(self._bounds, context_tokens)
        if self._members[stage]:
            return stage
        for step in (1, -1):
            neighbour = self.neighbour(stage, step)
            if neighbour is not None:
                return neighbour
        return stage

    def apply(self, boundary: Boundary) -> bool:
        """Take over a boundary if it is news; returns whether it was."""
        if boundary <= self.boundary(boundary.stage):
            return False
        self._versions[boundary.stage] = boundary.version
        self._told_tokens[boundary.stage] = boundary.hi_tokens
        self._bounds = list(accumulate(self._told_tokens, max))
        return True

    def remove(self, instance: int) -> None:
        """An instance has died."""
        self._dead.add(instance)
        stage = self._stage_of.get(instance)
        if stage is not None and instance in self._members[stage]:
            self._members[stage].remove(instance)
