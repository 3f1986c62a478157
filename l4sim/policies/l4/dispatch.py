"""L4's dispatch **[ours]**: over all living instances by harm, with prefixes, and the stage as a price and no fence.

A request goes to the instance of least

    (requests + OWN) · (pending + q + reserved) + context + price of its stage

in prompt tokens times requests that wait for each (`l4sim.policies.harm`). ``pending`` are the prompt tokens yet to be
computed there, less what is expected to be found in its cache, and q those of the request that are not cached there.

- *One's own wait* counts as that of `OWN` requests, beside once for each request that is held up: the mean alone would
  let a few wait for very long on instances that hardly anybody else is on.
- *Outside the request's stage* what it adds there is `OUTSIDE` times as dear, but not what waits there already, so that
  a burst of one length goes where it waits least: (OUTSIDE - 1) · ((requests + OWN) · q + context) more.
- *In a stage above*, from lo tokens up, a prompt of that stage is reckoned with in its place where q is less:
  ``reserved`` is lo - q, times how much of the stage's time such prompts take: their share of the prompt tokens of the
  last requests over the stage's share of the instances, at most 1. So the short leave a long stage to its own, but not
  one that is only grown into.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from l4sim.policies.books.block_lru import BlockLRU
from l4sim.policies.l4.stage_router import StageRouter
from l4sim.policies.plan import Plan
from l4sim.policies.views import InstanceView, RequestView

OWN = 6
"""Requests whose wait a request's own counts as."""
OUTSIDE = 1.5
"""How dear a stage is that is not the request's."""
MEMORY = 200
"""Requests that shares of prompt tokens are taken from, on average."""
CANDIDATES = 64
"""Instances whose contexts are looked at, those that would be the cheapest without."""
FEWEST = 50
"""Requests before which every stage is taken to be busy."""


class ExpectedHits:
    """What each instance's prefix cache probably holds, and what its queue will probably find there."""

    def __init__(self, prefix_id_tokens: int, kv_tokens: int) -> None:
        """``prefix_id_tokens``: prompt tokens that a prefix id stands for; ``kv_tokens``: of an instance."""
        self._id_tokens = prefix_id_tokens
        self._sent = BlockLRU(max(kv_tokens // prefix_id_tokens, 1))
        self._sums: dict[int, list[int]] = {}
        """By instance, tokens expected to be found by all that were sent there, after each of them."""

    def cached_tokens(self, request: RequestView) -> dict[int, int]:
        """Tokens that need not be computed, by the number of each instance that has some; one always has to be."""
        most = request.context_tokens - 1
        depths = self._sent.depths(request.prefix_ids)
        return {number: min(depth * self._id_tokens, most) for number, depth in depths.items()}

    def queued_tokens(self, instance: int, waiting: int) -> int:
        """Tokens that the queue of an instance will find: those in it were sent there last."""
        sums = self._sums.get(instance)
        return sums[-1] - sums[max(len(sums) - 1 - waiting, 0)] if sums else 0

    def sent(self, request: RequestView, instance: int, cached_tokens: int) -> None:
        """A request is sent to an instance, which has so much of it."""
        # The tail of a prompt is forgotten first, as an engine evicts it first.
        self._sent.use(instance, reversed(request.prefix_ids))
        sums = self._sums.setdefault(instance, [0])
        sums.append(sums[-1] + cached_tokens)
        if len(sums) > 2 * _MOST_QUEUED:
            del sums[:_MOST_QUEUED]

    def keep_only(self, numbers: Sequence[int]) -> None:
        """Forget all instances but these."""
        self._sent.keep_only(numbers)
        there = set(numbers)
        self._sums = {number: sums for number, sums in self._sums.items() if number in there}


_MOST_QUEUED = 1024
"""Requests in one queue that are told apart."""
_NOTHING: Mapping[int, int] = {}


class Dispatch(StageRouter):
    """Routes a request to the instance of least price."""

    def __init__(
        self,
        plan: Plan,
        hits: ExpectedHits | None = None,
        *,
        own: float = OWN,
        outside: float = OUTSIDE,
        batches: Sequence[float] = (),
    ) -> None:
        """``hits``: None to look at lengths alone. ``own``: requests whose wait one's own counts as; 1 for the mean
        alone. ``outside``: how dear a stage is that is not the request's; 1 for no stages.
        """
        super().__init__(plan, batches)
        self._hits = hits
        self._own = own
        self._outside = outside
        self._stages: list[int] = []
        """Of the instances seen last, by position."""
        self._shares: list[float] = []
        """Of these instances, by stage."""
        self._routed = 0
        self._tokens = [0.0] * len(self.ranges)
        """Prompt tokens of the last requests, by the stage of their length."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of least price, the first of equals. Source: ours."""
        if len(self._positions) != len(instances):
            self._learn(instances)
        self._count(request.context_tokens)
        hits = self._hits if request.prefix_ids else None
        cached = hits.cached_tokens(request) if hits is not None else _NOTHING
        position = self._cheapest(request.context_tokens, cached, instances)
        if hits is not None:
            number = instances[position].instance
            hits.sent(request, number, cached.get(number, 0))
        return position

    def _count(self, tokens: int) -> None:
        self._routed += 1
        self._tokens = [(1 - 1 / MEMORY) * sent for sent in self._tokens]
        self._tokens[self.ranges.stage_for(tokens)] += tokens

    def _cheapest(self, tokens: int, cached: Mapping[int, int], instances: Sequence[InstanceView]) -> int:
        home = self.ranges.stage_for(tokens)
        own, stages = self._own, self._stages
        busy = self._busy()
        reckoned = [self._reckoned(stage, home, tokens, busy) for stage in range(len(busy))]
        # Without contexts, which change with every token and are read only where they can still decide.
        prices = [
            (view.running + view.waiting + own) * (view.pending_prompt_tokens + reckoned[stage])
            for view, stage in zip(instances, stages, strict=True)
        ]
        if self._hits is not None:
            held = {self._positions[number] for number in cached if number in self._positions}
            queueing = [position for position, view in enumerate(instances) if view.waiting]
            for position in held.union(queueing):
                view = instances[position]
                there = self._reckoned(stages[position], home, tokens - cached.get(view.instance, 0), busy)
                waits = self._hits.queued_tokens(view.instance, view.waiting)
                pending = max(view.pending_prompt_tokens - waits, 0)
                prices[position] = (view.running + view.waiting + own) * (pending + there)
        best, chosen = math.inf, 0
        for position in _least(prices):
            if prices[position] < best:
                weight = 1 if stages[position] == home else self._outside
                price = prices[position] + weight * instances[position].context_tokens
                if (price, position) < (best, chosen) or best == math.inf:
                    best, chosen = price, position
        return chosen

    def _busy(self) -> list[float]:
        """By stage, how much of its instances' time is expected to go to prompts of its own, at most 1."""
        total = sum(self._tokens)
        if self._routed < FEWEST:
            return [1.0] * len(self._tokens)
        return [
            min(1.0, tokens / total / share) if share else 1.0
            for tokens, share in zip(self._tokens, self._shares, strict=True)
        ]

    def _reckoned(self, stage: int, home: int, tokens: int, busy: Sequence[float]) -> float:
        if stage == home or self._outside == 1:
            return tokens
        reserved = busy[stage] * max(self.ranges.range_of(stage)[0] - tokens, 0) if stage > home else 0
        return self._outside * tokens + reserved

    def _learn(self, instances: Sequence[InstanceView]) -> None:
        super()._learn(instances)
        members = [self.ranges.members(stage) for stage in range(len(self.ranges))]
        stages = {member: stage for stage, there in enumerate(members) for member in there}
        self._stages = [stages.get(view.instance, 0) for view in instances]
        self._shares = [len(there) / len(instances) for there in members]
        if len(members) != len(self._tokens):
            self._routed, self._tokens = 0, [0.0] * len(members)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and what they had cached with them, or joined."""
        super().follow(numbers)
        if self._hits is not None:
            self._hits.keep_only(numbers)


def _least(prices: Sequence[float]) -> Sequence[int]:
    """Positions of the least prices, the least of all first."""
    if len(prices) <= CANDIDATES:
        first = prices.index(min(prices))
        return [first, *range(first), *range(first + 1, len(prices))]
    least = np.argpartition(np.array(prices), CANDIDATES)[:CANDIDATES].tolist()
    return sorted(least, key=lambda position: (prices[position], position))
