"""How a request moves: with its KV copied while it decodes, copied while it pauses, or computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from l4sim.errors import InputError
from l4sim.specs.options import DEFAULTS


@dataclass(frozen=True, slots=True)
class MigrationRules:
    """When a migration may start, pause and give up.

    Raises:
        InputError: an unknown method.
    """

    max_concurrent: int = DEFAULTS.max_concurrent_migrations
    """Transfers that one instance takes part in at a time (the paper's figure)."""
    last_stage_blocks: int = DEFAULTS.migration_last_stage_blocks
    """Blocks left at which the request is paused (Llumnix's figure)."""
    max_stages: int = DEFAULTS.migration_max_stages
    """Copying stages before the last one; more than that aborts (Llumnix's figure)."""
    slowdown: float = DEFAULTS.migration_slowdown
    """Fraction by which iterations of an instance that takes part in a migration take longer (Llumnix's bound)."""
    method: str = DEFAULTS.migration
    """One of `METHODS`."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"no migration method '{self.method}': accepted are {', '.join(METHODS)}")


class Next(Enum):
    """What to do with a request that is about to move."""

    COPY = auto()
    """Copy what is there and not copied yet, while it decodes on."""
    LEAVE = auto()
    """Let it leave its batch; what is left of its KV goes with it."""
    GIVE_UP = auto()


@dataclass(frozen=True, slots=True)
class Method:
    """A way to migrate."""

    carries_kv: bool
    """Whether KV moves with the request; else it is computed again at the destination, as after a preemption."""
    next: Callable[[MigrationRules, int, int], Next]
    """Takes the rules, the stages copied so far and the blocks that are left to copy."""


def _staged(rules: MigrationRules, stages: int, left_blocks: int) -> Next:
    if stages == 0:
        return Next.COPY
    if left_blocks <= rules.last_stage_blocks:
        return Next.LEAVE
    return Next.GIVE_UP if stages >= rules.max_stages else Next.COPY


def _at_once(rules: MigrationRules, stages: int, left_blocks: int) -> Next:
    return Next.LEAVE


METHODS: Mapping[str, Method] = {
    "staged-copy": Method(carries_kv=True, next=_staged),
    "stop-and-copy": Method(carries_kv=True, next=_at_once),
    "recompute": Method(carries_kv=False, next=_at_once),
}
"""By name. Staged copy is Llumnix's (OSDI '24, section 4.2): each stage copies what was generated during the stage
before; once little is left the request pauses for it. Stop-and-copy pauses it for all of its KV, as connectors made for
prefill and decode on different instances do. To recompute pauses it for its whole prompt and answer so far."""
