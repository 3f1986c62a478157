"""The decoding requests of one instance, kept so that an iteration costs nothing per request.

All of them gain one token per iteration. So each is stored as what does not change while it decodes: its KV tokens less
the instance's iteration count (`base`). Its context, the iteration of its last token, of its next KV block and of its
next length boundary all follow from the count.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from l4sim.engine.request import NO_SLOT, Request

_Entry = tuple[int, int, int, Request]


class DecodingSet:
    """Who decodes, in which order they joined, and when the next of them needs something."""

    def __init__(self, max_num_seqs: int, block_tokens: int) -> None:
        self.iteration = 0
        """Iterations done by the instance so far."""
        self._block_tokens = block_tokens
        self._bases = np.zeros(max_num_seqs, dtype=np.int64)
        self.requests: list[Request] = []
        """The decoding requests in batch order; read only."""
        self._joined: dict[int, Request] = {}
        self._base_sum = 0
        self._base_square_sum = 0
        self._phases = [0] * block_tokens
        """Requests by base modulo the block size: those of one phase need a new block in the same iteration."""
        self._finishes: list[_Entry] = []
        self._crossings: list[_Entry] = []
        self.boundary_tokens: int | None = None

    def __len__(self) -> int:
        return len(self.requests)

    def find(self, index: int) -> Request | None:
        """A decoding request by its number; None if it does not decode here."""
        return self._joined.get(index)

    def context_tokens(self, request: Request) -> int:
        """Tokens of a decoding request whose KV is there."""
        return request.base_tokens + self.iteration

    @property
    def context_sum(self) -> int:
        """The sum of all decoding requests' KV tokens."""
        return self._base_sum + len(self.requests) * self.iteration

    @property
    def context_std(self) -> float:
        """The standard deviation of the decoding requests' context lengths, tokens."""
        count = len(self.requests)
        if count < 2:
            return 0.0
        # In whole numbers: bases fall far below zero with time, and their squares would swallow the spread.
        return math.sqrt(count * self._base_square_sum - self._base_sum * self._base_sum) / count

    def contexts_next(self) -> NDArray[np.int64]:
        """Context lengths in the next iteration, its token counted in; shape ``[len(self)]``."""
        return self._bases[: len(self.requests)] + (self.iteration + 1)

    def join(self, request: Request, context_tokens: int) -> None:
        """Let a request decode from ``context_tokens`` of KV on; its last answer token so far is in hand."""
        base = context_tokens - self.iteration
        request.base_tokens = base
        request.epoch += 1
        request.slot = len(self.requests)
        self._bases[request.slot] = base
        self.requests.append(request)
        self._joined[request.index] = request
        self._base_sum += base
        self._base_square_sum += base * base
        self._phases[base % self._block_tokens] += 1
        request.finish_at = self.iteration + request.output_tokens - request.generated_tokens
        heappush(self._finishes, (request.finish_at, request.index, request.epoch, request))
        if self.boundary_tokens is not None:
            heappush(self._crossings, (self.boundary_tokens - base, request.index, request.epoch, request))

    def leave(self, request: Request) -> int:
        """Take a request out of the batch; returns its KV tokens and settles its generated tokens."""
        base = request.base_tokens
        last = self.requests.pop()
        if last is not request:
            # The last one moves into the hole, as in vLLM's persistent batch.
            self.requests[request.slot] = last
            self._bases[request.slot] = last.base_tokens
            last.slot = request.slot
        request.slot = NO_SLOT
        del self._joined[request.index]
        self._base_sum -= base
        self._base_square_sum -= base * base
        self._phases[base % self._block_tokens] -= 1
        request.generated_tokens = request.output_tokens - (request.finish_at - self.iteration)
        return base + self.iteration

    def advance(self, iterations: int) -> tuple[list[Request], list[Request]]:
        """Count iterations; returns who generated its last token, and who reached the boundary and goes on."""
        self.iteration += iterations
        now = self.iteration
        finished = []
        heap = self._finishes
        while heap and heap[0][0] <= now:
            _, _, epoch, request = heappop(heap)
            if request.slot != NO_SLOT and request.epoch == epoch:
                self.leave(request)
                finished.append(request)
        crossed = []
        heap = self._crossings
        while heap and heap[0][0] <= now:
            _, _, epoch, request = heappop(heap)
            if request.slot != NO_SLOT and request.epoch == epoch:
                crossed.append(request)
        return finished, crossed

    def watch(self, boundary_tokens: int | None) -> None:
        """Report requests whose context reaches this length; those already there are reported at the next advance."""
        self.boundary_tokens = boundary_tokens
        self._crossings.clear()
        if boundary_tokens is not None:
            self._crossings.extend((boundary_tokens - r.base_tokens, r.index, r.epoch, r) for r in self.requests)
            heapify(self._crossings)

    def blocks_next(self) -> int:
        """New KV blocks that the next iteration takes: a phase's turn is when base + iteration fills up a block."""
        return self._phases[-self.iteration % self._block_tokens]

    def blocks_needed(self, iterations: int) -> int:
        """New KV blocks that the next ``iterations`` iterations take together."""
        size = self._block_tokens
        phases = self._phases
        cycles, rest = divmod(iterations, size)
        # Phases take turns in falling order.
        first = -self.iteration % size
        last = first - rest + 1
        turns = sum(phases[last : first + 1]) if last >= 0 else sum(phases[: first + 1]) + sum(phases[last:])
        return cycles * len(self.requests) + turns

    def quiet_iterations(self, free_blocks: int) -> int:
        """Iterations until a request ends, crosses the boundary or finds no free block; at least 1.

        The first iteration's blocks have been taken; ``free_blocks`` are what is left for those after it.
        """
        for heap in (self._finishes, self._crossings):
            while heap and (heap[0][3].slot == NO_SLOT or heap[0][3].epoch != heap[0][2]):
                heappop(heap)
        most = self._finishes[0][0] - self.iteration
        if self._crossings:
            most = min(most, self._crossings[0][0] - self.iteration)
        if most <= 1:
            return 1
        if len(self.requests) * (most // self._block_tokens + 1) <= free_blocks:
            return most
        taken = self.blocks_next()
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_needed(middle) - taken <= free_blocks:
                low = middle
            else:
                high = middle - 1
        return low

    def violations(self) -> list[str]:
        """What of the batch's invariants does not hold."""
        contexts = [self.context_tokens(request) for request in self.requests]
        phases = [0] * self._block_tokens
        for request in self.requests:
            phases[request.base_tokens % self._block_tokens] += 1
        found = []
        if sum(contexts) != self.context_sum or phases != self._phases:
            found.append(f"E3: contexts sum up to {sum(contexts)} tokens, {self.context_sum} are kept")
        if [request.slot for request in self.requests] != list(range(len(self.requests))):
            found.append("E3: a decoding request does not know its place in the batch")
        return found
