"""What a policy is: a router, perhaps agents and a coordinator, built anew for every run from a setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.policies.agent import Agent, Coordinator
from l4sim.policies.l4.affinity import Affinity
from l4sim.policies.l4.partition import Partition
from l4sim.policies.l4.replan import Planning
from l4sim.policies.routers import Router

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a policy may be built from."""

    instances: int
    seed: int
    partition: Callable[[], Partition]
    """Computes the plan for the traffic at hand; called only by policies that need one."""
    sample_lengths: Callable[[], tuple[IntArray, IntArray]]
    """Prompt and output tokens of the requests that a plan may know, shapes ``[n]``."""
    output_tokens: Callable[[], Sequence[int]]
    """True output lengths by request number: for the oracle, and for no other policy."""
    prefix_id_tokens: int
    """Prompt tokens that one of a request's prefix ids stands for."""
    affinity: Callable[[], Affinity] | None
    """Makes a memory of where prefixes were sent; None where there are none, or they are not to be followed."""
    planning: Callable[[], Planning]
    """What new plans are made with while traffic changes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy ready to run: state of one run, not to be used for a second one."""

    router: Router
    agents: tuple[Agent, ...] = ()
    """None, or one per instance that is there at the start."""
    coordinator: Coordinator | None = None
    partition: Partition | None = None
    boundary_moves: Sequence[tuple[float, int, int]] = ()
    """Grows during the run: when which stage's upper end was moved, and to how many tokens."""
    agent_for: Callable[[int], Agent] | None = None
    """Makes the agent of an instance that joins during the run; None where a policy has no agents, or takes none in."""


Builder = Callable[[Setting], Policy]
"""Makes a policy for one run."""

PolicyChoice = str | tuple[str, Builder]
"""One of `l4sim.policies.registry.POLICIES` by name, or a policy of one's own: a name for it, and what builds it."""
