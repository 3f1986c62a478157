"""A plan: which instances serve which context lengths."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple


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
