"""`power_of_two` as SGLang's gateway 0.3.2 has it, and as vLLM's router 0.1.17 has it before vLLM workers.

Follows `sgl-model-gateway/src/policies/power_of_two.rs`: of two random instances the one that has reported fewer
tokens, the first drawn of equals. Tokens are polled from `/get_load`, by default every 30 s; nothing is added for what
was sent since, and before the first poll SGLang's gateway takes any instance (it counts requests in flight for
`cache_aware` alone, as its recorded decisions show). vLLM serves no `/get_load`: vLLM's router compares requests in
flight. Departure: the tokens of an instance are those of the KV blocks it holds and those that wait, which is what
SGLang's workers report, rounded up to whole blocks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from l4sim.policies.books.in_flight import InFlight
from l4sim.policies.views import InstanceView, RequestView

POLL_S = 30.0
"""`--worker-startup-check-interval`'s default, at which loads are polled too."""


class PowerOfTwoTokens:
    """The one with fewer reported tokens, or fewer requests, of two random instances."""

    def __init__(self, instances: int, seed: int, *, reports: bool = True, view_age_s: float = POLL_S) -> None:
        """``reports``: workers answer the poll; else requests in flight are compared."""
        self.in_flight = InFlight(instances)
        self.view_age_s = view_age_s
        self._reports = reports
        self._polled: frozenset[int] = frozenset()
        """Numbers of the instances that have reported."""
        self._random = random.Random(seed)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the less loaded of two positions."""
        position = 0
        if len(instances) > 1:
            first = self._random.randrange(len(instances))
            second = (first + 1 + self._random.randrange(len(instances) - 1)) % len(instances)
            position = first if self.prefers(first, second, instances) else second
        self.send(request, instances[position].instance)
        return position

    def prefers(self, first: int, second: int, instances: Sequence[InstanceView]) -> bool:
        """Whether the position that was drawn first is taken."""
        one, other = instances[first], instances[second]
        if not self._reports:
            loads = self.in_flight.of(instances)
            return loads[first] <= loads[second]
        if one.instance in self._polled and other.instance in self._polled:
            return _tokens(one) <= _tokens(other)
        return True

    def send(self, request: RequestView, instance: int) -> None:
        """Note that a request is sent to an instance."""
        self.in_flight.send(request.request, instance)

    def ended(self, request: int, now_s: float) -> None:
        """One less is in flight."""
        self.in_flight.end(request)

    def published(self, now_s: float) -> None:
        """The poll has come back."""
        if self._reports:
            self._polled = frozenset(self.in_flight.numbers)

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone or joined; who has joined has not reported yet."""
        self._polled &= frozenset(numbers)
        self.in_flight.follow(numbers)


def _tokens(view: InstanceView) -> int:
    return (view.kv_blocks_total - view.kv_blocks_free) * view.kv_block_tokens + view.waiting_tokens
