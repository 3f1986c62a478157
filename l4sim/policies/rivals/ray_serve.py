"""Ray Serve LLM's prefix-aware router with its defaults.

Follows `PrefixCacheAffinityRouter` in `python/ray/llm/_internal/serve/routing_policies/prefix_aware/
prefix_aware_router.py` of ray-project/ray (2026): a prompt of which at least 0.1 was sent somewhere goes there, any
other to those that were sent the fewest characters so far; of several to the shortest queue, ties at random. Load
comes first only above `imbalanced_threshold`, which is infinite. Nothing is ever forgotten (`do_eviction` is off).
Departures: prefix blocks rather than characters are matched; queue lengths are the router's own count, where the source
caches what replicas told it last.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from l4sim.policies.books.in_flight import InFlight
from l4sim.policies.books.radix_tree import RadixTree
from l4sim.policies.views import InstanceView, RequestView

_MATCH_RATE = 0.1


class RayServe:
    """Prefix affinity, else the smallest tree."""

    def __init__(self, instances: int, prefix_id_tokens: int, seed: int) -> None:
        self._tree = RadixTree(instances, prefix_id_tokens)
        self._in_flight = InFlight(instances)
        self._random = random.Random(seed)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the shortest queue among those that the rule leaves."""
        among = self._matching(request, instances) or self._smallest(instances)
        loads = self._in_flight.of(instances)
        least = min(loads[n] for n in among)
        best = [n for n in among if loads[n] == least]
        position = best[0] if len(best) == 1 else self._random.choice(best)
        number = instances[position].instance
        self._tree.insert(request.prefix_ids, request.prompt_tokens, number)
        self._in_flight.send(request.request, number)
        return position

    def _matching(self, request: RequestView, instances: Sequence[InstanceView]) -> list[int]:
        held = self._tree.match(request.prefix_ids)
        if held.tokens < _MATCH_RATE * request.prompt_tokens:
            return []
        return [n for n, view in enumerate(instances) if view.instance in held.by]

    def _smallest(self, instances: Sequence[InstanceView]) -> list[int]:
        sizes = self._tree.sizes_tokens
        there = [sizes[view.instance] for view in instances]
        smallest = min(there)
        return [n for n, size in enumerate(there) if size == smallest]

    def ended(self, request: int, now_s: float) -> None:
        """One less is in flight."""
        self._in_flight.end(request)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they were sent with them, or joined."""
        for instance in set(self._in_flight.numbers) - set(numbers):
            self._tree.remove(instance)
        for instance in set(numbers) - set(self._in_flight.numbers):
            self._tree.add(instance)
        self._in_flight.follow(numbers)
