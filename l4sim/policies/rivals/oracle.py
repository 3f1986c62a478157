"""An oracle: every request's true output length is known when it is placed, and nothing is ever moved.

Ours. It tells what knowing the lengths could be worth to a router alone. Each request goes where it adds least to the
sum of all normalized latencies (E2E / output tokens), the measure that length-aware scheduling is after: greedily, and
without knowledge of later arrivals, so that it bounds what length-aware *placement* can do in practice, not in theory.

An iteration is taken to last as long as its batch has context tokens to read, and a prompt token to cost as much as
`_PROMPT_TOKEN_READS` of them. A request j placed beside a request i decodes together with it for as many iterations as
the one has left that ends first. In each of them i waits while j's context is read, and j while i's is; and i waits for
j's prompt once. Each wait is divided by the output length of the request that waits. As a result short answers are
placed away from long contexts, and long answers away from many short ones.

What is outstanding follows from what was placed and from each instance's counts of requests: prompts are started in the
order in which they were placed, and as all decoding requests of an instance gain a token per iteration, whoever has the
fewest left ends first. (A preemption breaks the order; the error lasts until its request ends.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from l4sim.policies.views import InstanceView, RequestView

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_PROMPT_TOKEN_READS = 500.0
"""Ours, for an 8B model on an H200: 16e9 FLOP at 1e15 a second last about as long as 500 times 128 KiB at 4.8e12."""


class _Placed:
    """The requests outstanding, as columns: one slot each, packed."""

    def __init__(self) -> None:
        self.count = 0
        self.columns: FloatArray = np.empty((3, 64))
        """By slot: the iteration of its instance in which it ends (before it decodes: its output tokens); its last
        context length; one over its output tokens."""
        self.rows: IntArray = np.empty((2, 64), dtype=np.int64)
        """By slot: its instance; the clock that it goes by (0 before it decodes)."""
        self._requests: list[int] = []
        self._slots: dict[int, int] = {}

    def add(self, request: int, instance: int, prompt_tokens: int, output_tokens: int) -> None:
        """Take in a request that does not decode yet."""
        slot = self.count
        if slot == self.columns.shape[1]:
            self.columns = np.concatenate((self.columns, np.empty_like(self.columns)), axis=1)
            self.rows = np.concatenate((self.rows, np.empty_like(self.rows)), axis=1)
        self.columns[:, slot] = output_tokens, prompt_tokens + output_tokens, 1.0 / output_tokens
        self.rows[:, slot] = instance, 0
        self._requests.append(request)
        self._slots[request] = slot
        self.count += 1

    def start(self, request: int, clock: int, end: float) -> None:
        """A request decodes from now on."""
        slot = self._slots[request]
        self.columns[0, slot] = end
        self.rows[1, slot] = clock

    def remove(self, request: int) -> None:
        """A request has ended; the last slot moves into its place."""
        slot = self._slots.pop(request)
        last = self._requests.pop()
        self.count -= 1
        if last != request:
            self._requests[slot] = last
            self._slots[last] = slot
            self.columns[:, slot] = self.columns[:, self.count]
            self.rows[:, slot] = self.rows[:, self.count]


class OracleLength:
    """Places requests by their true lengths."""

    def __init__(self, instances: int, output_tokens: Sequence[int]) -> None:
        """``output_tokens``: the true output length of every request, by its number."""
        self._output_tokens = output_tokens
        self._clocks: FloatArray = np.zeros(1)
        """Iterations that are known to be done: clock 0 stands still, for who does not decode; instance i has i + 1."""
        self._placed = _Placed()
        self._queued: list[deque[tuple[int, int]]] = []
        """By instance: (request, output tokens), in the order in which they were placed."""
        self._decoding: list[list[tuple[int, int]]] = []
        """By instance, a heap: (the iteration of its end, request)."""
        self._outstanding: list[int] = []
        self._numbers: list[int] = []
        """Of the instances that take requests, in order."""
        self.follow(range(instances))

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position where the request adds least to the sum of normalized latencies."""
        output_tokens = self._output_tokens[request.request]
        position = int(np.argmin(self.costs(request.prompt_tokens, output_tokens, instances)))
        instance = instances[position].instance
        self._placed.add(request.request, instance, request.prompt_tokens, output_tokens)
        self._queued[instance].append((request.request, output_tokens))
        self._outstanding[instance] += 1
        return position

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone, and nothing is placed there any more, or joined."""
        for instance in set(self._numbers) - set(numbers):
            for request, _ in self._queued[instance]:
                self._placed.remove(request)
            for _, request in self._decoding[instance]:
                self._placed.remove(request)
            self._queued[instance].clear()
            self._decoding[instance].clear()
        self._numbers = list(numbers)
        joined = numbers[-1] + 1 - len(self._outstanding)
        if joined > 0:
            self._clocks = np.concatenate((self._clocks, np.zeros(joined)))
            self._queued += [deque() for _ in range(joined)]
            self._decoding += [[] for _ in range(joined)]
            self._outstanding += [0] * joined

    def costs(self, prompt_tokens: int, output_tokens: int, instances: Sequence[InstanceView]) -> FloatArray:
        """What a request would add on each instance, in context tokens read per output token; shape ``[n]``."""
        for view in instances:
            number, waiting = view.instance, view.waiting
            outstanding = view.running + waiting
            if outstanding != self._outstanding[number] or waiting != len(self._queued[number]):
                self._settle(number, waiting, outstanding)
        placed = self._placed
        end, final, weight = placed.columns[:, : placed.count]
        instance, clock = placed.rows[:, : placed.count]
        own_weight = 1.0 / output_tokens
        left = end - np.take(self._clocks, clock)
        together = np.minimum(left, output_tokens)
        growth = together * (0.5 * (weight + own_weight))
        added = together * (weight * prompt_tokens + own_weight * (final - left) + growth)
        added += weight * (_PROMPT_TOKEN_READS * prompt_tokens)
        costs = np.bincount(instance, added, len(self._outstanding)).astype(np.float64, copy=False)
        return costs if len(instances) == len(costs) else costs[[view.instance for view in instances]]

    def _settle(self, instance: int, waiting: int, outstanding: int) -> None:
        """Conclude from an instance's counts what has started and what has ended."""
        queued, decoding = self._queued[instance], self._decoding[instance]
        clock = int(self._clocks[instance + 1])
        while len(queued) > waiting:
            request, output_tokens = queued.popleft()
            heappush(decoding, (clock + output_tokens, request))
            self._placed.start(request, instance + 1, clock + output_tokens)
        while decoding and len(queued) + len(decoding) > outstanding:
            clock, request = heappop(decoding)
            self._placed.remove(request)
        self._clocks[instance + 1] = clock
        self._outstanding[instance] = len(queued) + len(decoding)
