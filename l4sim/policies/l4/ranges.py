"""The stages as one agent, the router or the coordinator knows them: their boundaries and their instances.

Each of these *holders* has its own copy, and messages keep the copies close. Whatever message is lost or late, each
copy by itself covers [0, max] without gap or overlap: it is a list of boundaries, read so that they never decrease. Two
copies that have received the same boundaries are equal, in whatever order and however often they received them: of each
boundary the greatest (version, upper end) holds.

The instances of a stage follow from the plan and from the instances that have joined and gone since, in the order in
which all holders hear of them. An instance that joins goes to the stage that it is missing from most
(`l4sim.policies.apportion`). Every holder computes that by itself, and computes it again from the beginning whenever
it receives a new plan, so that copies agree on it too. **[ours]**
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate

from l4sim.policies.apportion import next_group
from l4sim.policies.l4.messages import Boundary
from l4sim.policies.plan import Plan


class Ranges:
    """The stages as one holder knows them."""

    def __init__(self, plan: Plan) -> None:
        self._changes: list[tuple[int, bool]] = []
        """Who has joined (true) and gone (false), in the order heard."""
        self._gone: set[int] = set()
        self._unseen: set[int] = set()
        self.replace(plan)

    def copy(self) -> Ranges:
        """A copy for a new holder, who will see for itself who is there."""
        copy = Ranges(self._plan)
        copy._changes = list(self._changes)
        copy.replace(self._plan)
        copy._heard_tokens = list(self._heard_tokens)
        copy._versions = list(self._versions)
        copy._bounds = list(self._bounds)
        return copy

    def replace(self, plan: Plan, version: int = 0) -> None:
        """Go by another plan from now on, whose boundaries have this version."""
        self._plan = plan
        self._max_tokens = plan.stages[-1].hi_tokens
        self._heard_tokens = [stage.hi_tokens for stage in plan.stages[:-1]]
        self._versions = [version] * len(self._heard_tokens)
        self._bounds = list(self._heard_tokens)
        self._ever = [list(stage.instances) for stage in plan.stages]
        """By stage, who is or has been in it; the first one there leads."""
        self._stage_of = {instance: n for n, stage in enumerate(plan.stages) for instance in stage.instances}
        self._gone = set()
        for instance, joined in self._changes:
            if joined:
                self._place(instance)
            else:
                self._gone.add(instance)
        self._settle()

    def _place(self, instance: int) -> None:
        """Put one that has joined into a stage, unless the plan has done so."""
        if instance in self._stage_of:
            return
        sizes = [sum(member not in self._gone for member in members) for members in self._ever]
        stage = next_group(sizes, [len(stage.instances) for stage in self._plan.stages])
        self._ever[stage].append(instance)
        self._stage_of[instance] = stage

    def _settle(self) -> None:
        absent = self._gone | self._unseen
        self._members = [[member for member in members if member not in absent] for members in self._ever]

    def __len__(self) -> int:
        return len(self._members)

    @property
    def bounds(self) -> Sequence[int]:
        """Upper ends of all stages but the last; they never fall from one to the next."""
        return self._bounds

    def boundary(self, stage: int) -> Boundary:
        """The upper end of a stage as last heard of; the plan's has version 0."""
        return Boundary(stage, self._versions[stage], self._heard_tokens[stage])

    def range_of(self, stage: int) -> tuple[int, int]:
        """A stage's current range [lo, hi) in tokens."""
        lo = self._bounds[stage - 1] if stage else 0
        return lo, self._bounds[stage] if stage < len(self._bounds) else self._max_tokens

    def stage_of_instance(self, instance: int) -> int:
        """The stage that an instance belongs to, or did before it had gone."""
        return self._stage_of[instance]

    def turn(self, instance: int) -> int:
        """How many members come before an instance in the order in which they lead their stage.

        Of one that has joined those that have gone count too, so that no earlier leader has had as high a turn.
        """
        stage = self._stage_of[instance]
        planned = instance in self._plan.stages[stage].instances
        return (self._members if planned else self._ever)[stage].index(instance)

    def members(self, stage: int) -> Sequence[int]:
        """The instances of a stage that take requests; there may be none."""
        return self._members[stage]

    def leader(self, stage: int) -> int | None:
        """The instance that speaks for a stage: its first one that takes requests."""
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
        self._heard_tokens[boundary.stage] = boundary.hi_tokens
        self._bounds = list(accumulate(self._heard_tokens, max))
        return True

    def add(self, instance: int) -> None:
        """An instance has joined; it becomes the last member of its stage."""
        if (instance, True) not in self._changes:
            self._changes.append((instance, True))
            self._place(instance)
            self._settle()

    def remove(self, instance: int) -> None:
        """An instance has died, or drains: nothing is sent there any more."""
        if instance not in self._gone:
            self._changes.append((instance, False))
            self._gone.add(instance)
            self._settle()

    def see(self, present: Collection[int]) -> None:
        """Only these are there: others are passed over, though nobody has heard yet why, until they are seen again."""
        self._unseen = {member for members in self._ever for member in members} - set(present)
        self._settle()
