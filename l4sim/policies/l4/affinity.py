"""Prefix affinity: when a request goes where its prefix lives instead of where its length belongs. **[ours]**

A router remembers which instance it last sent each prefix to. With a request whose prefix some instance probably still
holds, it compares that instance with the least loaded one of the request's stage by what each would cost everybody, in
seconds:

    price(i) = (pending_i + new_i) · p + running_i · new_i · p       waiting and prefill: mine, and the others' pause
             + out · (running_i · s + context_i · c)                 my decoding among them
             + out · running_i · (s + context · c)                   theirs with me

with ``new_i`` the prompt tokens that instance i has to compute, ``p`` seconds per prompt token, ``s`` seconds per
request and ``c`` per context token in an iteration, ``out`` the mean output. Recomputation saved is worth more than the
length match where the price is lower: a short-context batch makes ``running`` large, so a long request in it is dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l4sim.policies.views import InstanceView, RequestView


@dataclass(frozen=True, slots=True)
class Prices:
    """What things cost, from the cost model's affine fit and the traffic that the plan was made from."""

    prompt_token_s: float
    prompt_pair_s: float
    """Per pair of a prompt token and a token that it attends to."""
    request_s: float
    """Per request in an iteration."""
    context_token_s: float
    """Per token of context in an iteration."""
    output_tokens: float
    """Mean answer."""

    def prefill_s(self, prompt_tokens: int, cached_tokens: int) -> float:
        """Seconds to compute a prompt behind what is cached of it."""
        new = prompt_tokens - cached_tokens
        return new * (self.prompt_token_s + self.prompt_pair_s * (cached_tokens + new / 2))


class Affinity:
    """Where prefixes were sent, and whether to follow them."""

    def __init__(self, prices: Prices, id_tokens: int, capacity_tokens: int) -> None:
        """``id_tokens``: prompt tokens that one prefix id stands for; ``capacity_tokens``: KV of all instances."""
        self._prices = prices
        self._id_tokens = id_tokens
        self._most_ids = max(capacity_tokens // id_tokens, 1)
        # Two generations stand in for a least-recently-used list: what has not been sent for one to two capacities
        # is forgotten, as the caches will have evicted it.
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def holder(self, prefix_ids: Sequence[int]) -> tuple[int, int]:
        """The instance last sent the longest known prefix, and that prefix's tokens; (-1, 0) if none is known."""
        low, high = 0, len(prefix_ids)
        # An id stands for all before it too, so what is known is a leading part.
        while low < high:
            middle = (low + high) // 2
            if self._find(prefix_ids[middle]) is None:
                high = middle
            else:
                low = middle + 1
        if not low:
            return -1, 0
        instance = self._find(prefix_ids[low - 1])
        return (-1, 0) if instance is None else (instance, low * self._id_tokens)

    def _find(self, prefix_id: int) -> int | None:
        found = self._young.get(prefix_id)
        return self._old.get(prefix_id) if found is None else found

    def sent(self, prefix_ids: Sequence[int], instance: int) -> None:
        """Remember where a request was sent."""
        self._young.update(dict.fromkeys(prefix_ids, instance))
        if len(self._young) > self._most_ids:
            self._old, self._young = self._young, {}

    def price(self, request: RequestView, view: InstanceView, cached_tokens: int) -> float:
        """Seconds that serving the request on an instance costs it and the others there."""
        prices = self._prices
        running, out = view.running, prices.output_tokens
        prefill_s = prices.prefill_s(request.context_tokens, cached_tokens)
        mine_s = running * prices.request_s + view.context_tokens * prices.context_token_s
        theirs_s = running * (prices.request_s + request.context_tokens * prices.context_token_s)
        return (
            view.pending_prompt_tokens * prices.prompt_token_s + prefill_s * (1 + running) + out * (mine_s + theirs_s)
        )
