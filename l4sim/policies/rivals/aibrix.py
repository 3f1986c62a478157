"""AIBrix's gateway with `prefix-cache` and its defaults.

Follows `pkg/plugins/gateway/algorithms/prefix_cache.go` of vllm-project/aibrix (main, commit 01de8a5, 2026). A request
goes where most of its prompt was sent, if that instance has at most the mean number of requests in flight plus one
standard deviation; else where the second most was sent, and so on; ties by requests in flight, then at random. If no
instance qualifies, to the fewest requests in flight. Where the most loaded has more than twice (mean + 1) and 8 more
than the least loaded, only the least loaded count as having been sent anything. Departures: prefix blocks are the
trace's; nothing is forgotten, where the source's table has room for some 10^5 blocks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from l4sim.policies.books.block_lru import BlockLRU
from l4sim.policies.books.in_flight import InFlight
from l4sim.policies.views import InstanceView, RequestView

_IMBALANCE_FACTOR, _IMBALANCE_GAP = 2.0, 8
_DEVIATIONS = 1.0


class AIBrix:
    """The longest match that is not overloaded."""

    def __init__(self, instances: int, seed: int) -> None:
        self._in_flight = InFlight(instances)
        self._sent = BlockLRU(None)
        self._random = random.Random(seed)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of the longest match that qualifies, or of the fewest requests."""
        loads = self._in_flight.of(instances)
        position = self._matching(request, instances, loads)
        if position is None:
            least = min(loads)
            position = self._random.choice([n for n, load in enumerate(loads) if load == least])
        number = instances[position].instance
        self._sent.use(number, request.prefix_ids)
        self._in_flight.send(request.request, number)
        return position

    def _matching(self, request: RequestView, instances: Sequence[InstanceView], loads: Sequence[int]) -> int | None:
        depths = self._sent.depths(request.prefix_ids)
        if not depths:
            return None
        mean, least, most = sum(loads) / len(loads), min(loads), max(loads)
        only = least if most > _IMBALANCE_FACTOR * (mean + 1) and most - least >= _IMBALANCE_GAP else most
        deviation = math.sqrt(max(sum([load * load for load in loads]) / len(loads) - mean * mean, 0.0))
        limit = min(mean + _DEVIATIONS * deviation, only)
        ranked = [
            (-depths[view.instance], load, self._random.random(), n)
            for n, (view, load) in enumerate(zip(instances, loads, strict=True))
            if load <= limit and view.instance in depths
        ]
        return min(ranked)[-1] if ranked else None

    def ended(self, request: int, now_s: float) -> None:
        """One less is in flight."""
        self._in_flight.end(request)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they were sent with them, or joined."""
        self._sent.keep_only(numbers)
        self._in_flight.follow(numbers)
