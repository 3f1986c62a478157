"""Plans: which instances serve which context lengths, and where the builder of a policy gets its plan from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, cast


class Stage(NamedTuple):
    """One stage: the instances that hold context lengths in ``[lo_tokens, hi_tokens)``."""

    lo_tokens: int
    hi_tokens: int
    instances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages in order of length; their ranges tile [0, max] and their instances are disjoint.

    Raises:
        ValueError: they are not.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages or self.stages[0].lo_tokens != 0:
            raise ValueError("a plan begins with a stage from 0")
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            if stage.hi_tokens != following.lo_tokens:
                raise ValueError(
                    f"stage [{stage.lo_tokens}, {stage.hi_tokens}) is followed by one from {following.lo_tokens}"
                )
        instances = [instance for stage in self.stages for instance in stage.instances]
        if len(set(instances)) != len(instances) or not all(
            stage.instances and stage.lo_tokens < stage.hi_tokens for stage in self.stages
        ):
            raise ValueError("every stage needs a range and instances of its own")

    def stage_of(self, context_tokens: int) -> int:
        """The number of the stage for a context length; the last one beyond the plan's end."""
        return bisect_right([stage.hi_tokens for stage in self.stages[:-1]], context_tokens)


class Planned(Protocol):
    """A plan together with whatever its planner knows about it besides (for L4: what it expects of every stage)."""

    @property
    def plan(self) -> Plan:
        """The stages."""
        ...


P = TypeVar("P", bound=Planned)


class Plans(Protocol):
    """Where the builder of a policy gets its plan from (`l4sim.policies.policy.Setting.plans`)."""

    def plan(self, key: Hashable, make: Callable[[], P]) -> P:
        """Return the plan to go by.

        ``make`` plans from the builder's setting; ``key`` names the planner and whatever else, beside the setting, the
        plan depends on.
        """
        ...


class SharedPlans:
    """Makes each plan once: policies of one comparison that ask with the same key, as L4's ablations do, share it."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Planned] = {}

    def plan(self, key: Hashable, make: Callable[[], P]) -> P:
        """Return the plan of that key, made the first time that it is asked for."""
        if key not in self._made:
            self._made[key] = make()
        return cast(P, self._made[key])


class GivenPlan:
    """Makes no plan, and hands out one from elsewhere: that of a recorded run, or of a search."""

    def __init__(self, give: Callable[[], Planned]) -> None:
        """``give`` returns the plan; it is called only by policies that need one."""
        self._give = give

    def plan(self, key: Hashable, make: Callable[[], P]) -> P:
        """Return the given plan, whoever asks."""
        return cast(P, self._give())
