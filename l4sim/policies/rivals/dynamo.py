"""NVIDIA Dynamo's KV router with its default weights.

Follows `lib/kv-router/src/scheduling/{selector/default,config}.rs` of ai-dynamo/dynamo (main, commits 07a6c9c and
0243c51, 2026). In blocks of the KV cache, a request costs on an instance

    max(0, prompt tokens being computed there + its own - those of it that are cached there) + blocks in use with it

and goes where that is least (temperature 0), ties at random. Caches are known from KV events, blocks in use from the
router's own books: prompts of what is in flight, shared blocks once, answers not counted. Where every instance has more
than 16 times its token budget to compute, requests wait at the router, first come first served
(`router_queue_threshold`).

Departures: the prompt tokens being computed are the instance's own count, where Dynamo's router takes a prompt off when
its first token comes; prefix hits of those that wait are not taken off. Whether the queue can go on is looked at every
0.1 s (ours), and whenever a request ends.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from l4sim.policies.books.active_blocks import ActiveBlocks
from l4sim.policies.books.block_lru import BlockLRU
from l4sim.policies.routers import HOLD
from l4sim.policies.views import InstanceView, RequestView

_QUEUE_THRESHOLD = 16.0
_PENDING = attrgetter("pending_prompt_tokens")


class Dynamo:
    """Least prefill and decode cost."""

    def __init__(self, instances: int, prefix_id_tokens: int, max_num_batched_tokens: int, seed: int) -> None:
        """``max_num_batched_tokens``: the token budget of an instance's iteration."""
        self.timers = {"queue": 0.1}
        self._id_tokens = prefix_id_tokens
        self._most_pending = _QUEUE_THRESHOLD * max_num_batched_tokens
        self._cached = BlockLRU(None)
        self._active = ActiveBlocks(instances, prefix_id_tokens)
        self._random = random.Random(seed)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return a position of least cost, or `HOLD`."""
        pending = np.fromiter(map(_PENDING, instances), np.float64, len(instances))
        if pending.min() > self._most_pending:
            return HOLD
        rows = self._active.in_flight.rows(instances)
        position = self._active.in_flight.among(instances)
        prefill = pending + request.prompt_tokens
        for instance, depth in self._cached.depths(request.prefix_ids).items():
            if instance in position:
                prefill[position[instance]] -= min(depth * self._id_tokens, request.prompt_tokens)
        tokens = self._active.tokens
        decode = (tokens if isinstance(rows, range) else tokens[rows]) + request.prompt_tokens
        for instance, shared in self._active.shared_tokens(request.prefix_ids).items():
            if instance in position:
                decode[position[instance]] -= shared
        costs = np.maximum(prefill, 0.0) + decode
        best = np.flatnonzero(costs == costs.min())
        chosen = int(best[0] if len(best) == 1 else self._random.choice(best.tolist()))
        number = instances[chosen].instance
        self._active.send(request.request, number, request.prefix_ids, request.prompt_tokens)
        return chosen

    def cache_changed(self, instance: int, stored: Sequence[int], removed: Sequence[int]) -> None:
        """KV events of an instance."""
        self._cached.remove(instance, removed)
        self._cached.use(instance, stored)

    def ended(self, request: int, now_s: float) -> None:
        """One less is in flight."""
        self._active.end(request)

    def tick(self, name: str, now_s: float) -> None:
        """The front end offers again what is kept back."""

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they had cached with them, or joined."""
        self._cached.keep_only(numbers)
        self._active.follow(numbers)
