"""Prompt blocks of the requests in flight on each instance, those that several of them share counted once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l4sim.policies.books.block_lru import BlockLRU
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
        """By instance: requests in flight by prefix id."""
        self._index = BlockLRU(None)

    def shared_tokens(self, ids: Sequence[int]) -> dict[int, int]:
        """Tokens of a prompt that requests in flight on an instance begin with too, by its number."""
        return {instance: depth * self._id_tokens for instance, depth in self._index.depths(ids).items()}

    def send(self, request: int, instance: int, ids: tuple[int, ...], prompt_tokens: int) -> None:
        """A request is sent to an instance."""
        self.end(request)
        row = self.in_flight.send(request, instance)
        tail = prompt_tokens - len(ids) * self._id_tokens
        self._sent[request] = instance, ids, tail
        uses = self._uses.setdefault(instance, {})
        new = [block for block in ids if block not in uses]
        # Who has an id has those before it: what is in use already comes first.
        for block in ids[: len(ids) - len(new)]:
            uses[block] += 1
        uses.update(dict.fromkeys(new, 1))
        self._index.use(instance, new)
        self.tokens[row] += len(new) * self._id_tokens + tail

    def end(self, request: int) -> None:
        """A request has ended."""
        row = self.in_flight.end(request)
        instance, ids, tail = self._sent.pop(request, (-1, (), 0))
        if row is None:
            return
        uses = self._uses[instance]
        gone = [block for block in ids if uses[block] == 1]
        for block in ids[: len(ids) - len(gone)]:
            uses[block] -= 1
        for block in gone:
            del uses[block]
        self._index.remove(instance, gone)
        self.tokens[row] -= len(gone) * self._id_tokens + tail

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone or joined."""
        known = dict(zip(self.in_flight.numbers, self.tokens.tolist(), strict=True))
        self.in_flight.follow(numbers)
        self.tokens = np.array([known.get(number, 0.0) for number in numbers])
        self._index.keep_only(numbers)
        there = set(numbers)
        self._uses = {instance: uses for instance, uses in self._uses.items() if instance in there}
