"""Prompt blocks of the requests in flight on each instance, those that several of them share counted once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l4sim.policies.books.block_lru import leading
from l4sim.policies.books.in_flight import InFlight


class ActiveBlocks:
    """As Dynamo's router keeps them (`lib/kv-router`, active sequences): known by what was sent and what has ended."""

    def __init__(self, instances: int, prefix_id_tokens: int) -> None:
        self.in_flight = InFlight(instances)
        self.tokens = np.zeros(instances)
        """Tokens in these blocks, by position in `in_flight.numbers`."""
        self._id_tokens = prefix_id_tokens
        self._sent: dict[int, tuple[int, tuple[int, ...], int]] = {}
        """By request in flight: its instance, its prefix ids, and the tokens behind them."""
        self._uses: dict[int, dict[int, int]] = {}
        """By prefix id: requests in flight that have it, by instance."""

    def shared_tokens(self, ids: Sequence[int]) -> dict[int, int]:
        """Tokens of a prompt that requests in flight on an instance begin with too, by its number."""
        return {instance: depth * self._id_tokens for instance, depth in leading(self._uses, ids).items()}

    def send(self, request: int, instance: int, ids: tuple[int, ...], prompt_tokens: int) -> None:
        """A request is sent to an instance."""
        self.end(request)
        row = self.in_flight.send(request, instance)
        tail = prompt_tokens - len(ids) * self._id_tokens
        self._sent[request] = instance, ids, tail
        new = 0
        for block in ids:
            uses = self._uses.setdefault(block, {})
            count = uses.get(instance, 0)
            uses[instance] = count + 1
            new += not count
        self.tokens[row] += new * self._id_tokens + tail

    def end(self, request: int) -> None:
        """A request has ended."""
        row = self.in_flight.end(request)
        instance, ids, tail = self._sent.pop(request, (-1, (), 0))
        if row is None:
            return
        gone = 0
        for block in ids:
            uses = self._uses[block]
            uses[instance] -= 1
            if not uses[instance]:
                gone += 1
                del uses[instance]
                if not uses:
                    del self._uses[block]
        self.tokens[row] -= gone * self._id_tokens + tail

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone or joined."""
        known = dict(zip(self.in_flight.numbers, self.tokens.tolist(), strict=True))
        self.in_flight.follow(numbers)
        self.tokens = np.array([known.get(number, 0.0) for number in numbers])
        there = set(numbers)
        for block, uses in list(self._uses.items()):
            for instance in set(uses) - there:
                del uses[instance]
            if not uses:
                del self._uses[block]
