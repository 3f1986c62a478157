"""Two static pools by prompt length: the cheap control for every length-aware scheduler.

Ours, after the common practice of serving long prompts apart. Where the boundary lies, and how many instances a pool
has, comes from L4's own planner with two stages (`two-pools`). Or, naively, load is counted in tokens, of prompts and
answers: the boundary is the prompt length that halves the load of a sample of the traffic, and instances are shared out
by load (`two-pools-naive`). Within its pool a request goes to the instance with the fewest requests. Nothing moves
afterwards, and the boundary never changes. An instance that joins goes to the pool that it is missing from most
(`l4sim.policies.apportion`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.policies.apportion import next_group
from l4sim.policies.views import InstanceView, RequestView

IntArray = NDArray[np.int64]


class Pools(NamedTuple):
    """The split."""

    boundary_tokens: int
    """Prompts of this length and more are long."""
    short_instances: int
    """Instances ``[0, short_instances)`` serve short prompts, the others long ones."""


def check_instances(instances: int) -> None:
    """Raise InputError if two pools would not have an instance each."""
    if instances < 2:
        raise InputError(f"policy 'two-pools' needs at least 2 instances, not {instances}")


def split_pools(prompt_tokens: IntArray, output_tokens: IntArray, instances: int) -> Pools:
    """The two naive pools for a sample of requests; shapes ``[n]``.

    Raises:
        InputError: fewer than two instances, or prompts all of one length.
    """
    check_instances(instances)
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
        self._is_long = {number: number >= pools.short_instances for number in range(instances)}
        """Whether an instance serves long prompts, by number."""
        self._planned = (pools.short_instances, instances - pools.short_instances)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded position of the prompt's pool, the first of equals; of all, if the pool is empty."""
        is_long = request.prompt_tokens >= self._pools.boundary_tokens
        in_pool = self._is_long
        loads = [view.running + view.waiting if in_pool[view.instance] == is_long else math.inf for view in instances]
        least = min(loads)
        if least == math.inf:
            loads = [view.running + view.waiting for view in instances]
            least = min(loads)
        return loads.index(least)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, or joined: each of these goes to the pool where it is missing most."""
        self._is_long = {number: is_long for number, is_long in self._is_long.items() if number in numbers}
        for number in numbers:
            if number not in self._is_long:
                pools = list(self._is_long.values())
                self._is_long[number] = bool(next_group((pools.count(False), pools.count(True)), self._planned))
