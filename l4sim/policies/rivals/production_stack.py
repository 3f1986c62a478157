"""vLLM production stack's `prefixaware`: at random among those that were sent the longest prefix, whatever their load.

Follows `PrefixAwareRouter` in `src/vllm_router/routers/routing_logic.py` of vllm-project/production-stack, at 008a23bd.
Where nothing matches, any instance. Nothing is ever forgotten. (Its default is `roundrobin`.)
Departure: prefix blocks are the trace's, where the source's trie has pieces of 128 characters.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from l4sim.policies.books.radix_tree import RadixTree
from l4sim.policies.views import InstanceView, RequestView


class PrefixAware:
    """The longest match, and nothing else."""

    def __init__(self, instances: int, prefix_id_tokens: int, seed: int) -> None:
        self._tree = RadixTree(instances, prefix_id_tokens)
        self._random = random.Random(seed)
        self._numbers = list(range(instances))

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return one of the positions that were sent most of the prompt."""
        depths = self._tree.depths(request.prefix_ids)
        there = [depths.get(view.instance, 0) for view in instances] if depths else [0] * len(instances)
        longest = max(there)
        position = self._random.choice([n for n, depth in enumerate(there) if depth == longest])
        self._tree.insert(request.prefix_ids, request.prompt_tokens, instances[position].instance)
        return position

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they were sent with them, or joined."""
        for instance in set(self._numbers) - set(numbers):
            self._tree.remove(instance)
        for instance in set(numbers) - set(self._numbers):
            self._tree.add(instance)
        self._numbers = list(numbers)
