"""Least harm: routers that know what a prompt does to those beside it, and nothing of stages.

Ours: the strongest controls for L4 that see no more than a front end does. Nothing is planned, nothing moves.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.policies.books.block_lru import BlockLRU
from l4sim.policies.harm import least_harm
from l4sim.policies.views import InstanceView, RequestView


class LeastHarm:
    """The instance where one more request slows the others down, and is slowed down by them, the least."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of least harm (`l4sim.policies.harm`), the first of equals."""
        return least_harm(instances, request.prompt_tokens, {})


class LeastHarmPrefix:
    """Least harm where a prompt is as long as what of it is not cached.

    What an instance has cached is taken to be what it was sent last, as much as its KV cache holds.
    """

    def __init__(self, prefix_id_tokens: int, kv_tokens: int) -> None:
        """``prefix_id_tokens``: prompt tokens that a prefix id stands for; ``kv_tokens``: of an instance."""
        self._id_tokens = prefix_id_tokens
        self._sent = BlockLRU(max(kv_tokens // prefix_id_tokens, 1))

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of least harm, the first of equals."""
        prompt_tokens, ids = request.prompt_tokens, request.prefix_ids
        # At least one token is computed, so that there is something to sample from.
        most = prompt_tokens - 1
        cached = {number: min(depth * self._id_tokens, most) for number, depth in self._sent.depths(ids).items()}
        position = least_harm(instances, prompt_tokens, cached)
        # The tail of a prompt is forgotten first, as an engine evicts it first.
        self._sent.use(instances[position].instance, reversed(ids))
        return position

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they had cached with them, or joined."""
        self._sent.keep_only(numbers)
