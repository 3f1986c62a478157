"""Two static pools by prompt length: the cheap control for every length-aware scheduler.

Ours, after the common practice of serving long prompts apart. Load is counted in tokens, of prompts and answers: the
boundary is the prompt length that halves the load of a sample of the traffic, and instances are shared out by load.
Within its pool a request goes to the instance with the fewest requests. Nothing moves afterwards, and the boundary
never changes. An instance that joins goes to the pool that it is missing from most (`l4sim.policies.apportion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.policies.apportion import next_group
from l4sim.policies.routers import same_fleet
from l4sim.policies.views import InstanceView, RequestView

IntArray = NDArray[np.int64]


class Pools(NamedTuple):
    """The split."""

    boundary_tokens: int
    """Prompts of this length and more are long."""
    short_instances: int
    """Instances ``[0, short_instances)`` serve short prompts, the others long ones."""


def split_pools(prompt_tokens: IntArray, output_tokens: IntArray, instances: int) -> Pools:
    """The two pools for a sample of requests; shapes ``[n]``.

    Raises:
        InputError: fewer than two instances, or prompts all of one length.
    """
    if instances < 2:
        raise InputError(f"policy 'two-pools' needs at least 2 instances, not {instances}")
    lengths, which = np.unique(prompt_tokens, return_inverse=True)
    if len(lengths) < 2:
        raise InputError("policy 'two-pools' needs prompts of different lengths, and the plan's sample has none")
    load = np.cumsum(np.bincount(which, prompt_tokens + output_tokens))
    share = load[:-1] / load[-1]
    last_short = int(np.argmin(np.abs(share - 0.5)))
    short_instances = min(max(round(instances * float(share[last_short])), 1), instances - 1)
    return Pools(int(lengths[last_short + 1]), short_instances)


class TwoPools:
    """Routes by prompt length."""

    def __init__(self, pools: Pools, instances: int) -> None:
        self._pools = pools
        self._numbers = list(range(instances))
        """Of the instances seen last, in their order."""
        self._is_long = [number >= pools.short_instances for number in self._numbers]
        """Whether each of them serves long prompts."""
        self._planned = (pools.short_instances, instances - pools.short_instances)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded position of the prompt's pool, the first of equals; of all, if the pool is empty."""
        if not same_fleet(self._numbers, instances):
            self._follow([view.instance for view in instances])
        is_long = request.prompt_tokens >= self._pools.boundary_tokens
        pool = [position for position, serves_long in enumerate(self._is_long) if serves_long == is_long]
        loads = {p: instances[p].running + instances[p].waiting for p in pool or range(len(instances))}
        return min(loads, key=loads.__getitem__)

    def _follow(self, numbers: list[int]) -> None:
        """Instances have gone, or joined: each of these goes to the pool where it is missing most."""
        pools = dict(zip(self._numbers, self._is_long, strict=True))
        is_long = [pools[number] for number in numbers if number in pools]
        while len(is_long) < len(numbers):
            is_long.append(bool(next_group((is_long.count(False), is_long.count(True)), self._planned)))
        self._numbers, self._is_long = numbers, is_long
