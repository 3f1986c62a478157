"""Two static pools by prompt length: the cheap control for every length-aware scheduler.

Ours, after the common practice of serving long prompts apart. Load is counted in tokens, of prompts and answers: the
boundary is the prompt length that halves the load of a sample of the traffic, and instances are shared out by load.
Within its pool a request goes to the instance with the fewest requests. Nothing moves afterwards, and the boundary
never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
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

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded position of the prompt's pool, the first of equals; of all, if the pool has died."""
        boundary_tokens, short_instances = self._pools
        is_long = request.prompt_tokens >= boundary_tokens
        pool = [p for p, view in enumerate(instances) if (view.instance >= short_instances) == is_long]
        loads = {p: instances[p].running + instances[p].waiting for p in pool or range(len(instances))}
        return min(loads, key=loads.__getitem__)
