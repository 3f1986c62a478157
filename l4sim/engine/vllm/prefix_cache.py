"""Automatic prefix caching: full blocks are found again by their content until they are taken for something else.

After vLLM's `v1/core/block_pool.py`, block by block. Free blocks stand in a queue, next to be taken first. A full block
gets a hash, and with it a name (`Request.block_keys`) by which requests that begin alike find it, held or free. Two
requests that compute the same prefix at the same time have a copy each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain, islice

from l4sim.engine.blocks import BlockPool, Match, blocks_for
from l4sim.engine.request import Request


class _Block:
    """A block that has a hash."""

    __slots__ = ("holders", "key")

    def __init__(self, key: int) -> None:
        self.key = key
        self.holders = 1


class _Blank:
    """Free blocks without a hash, next to one another in the queue."""


class PrefixCachingPool(BlockPool):
    """Blocks with content: the free queue, and the hashed blocks by key."""

    def __init__(self, total: int, block_tokens: int, *, unhashed_first: bool = True) -> None:
        """``unhashed_first``: freed blocks without a hash go to the front of the queue (else behind all others)."""
        super().__init__(total, block_tokens)
        self._unhashed_first = unhashed_first
        self._front = total
        """Blocks without a hash at the front of the queue."""
        self._queue: OrderedDict[_Block | _Blank, int] = OrderedDict()
        """What stands behind them, with the number of blocks of each entry."""
        self._copies: dict[int, dict[_Block, None]] = {}
        """Hashed blocks by key, the one hashed first in front."""
        self._answering: dict[int, tuple[Request, Callable[[Request], int]]] = {}
        """Who decodes, by the keys of blocks to come."""

    def take(self, blocks: int) -> None:
        """Take free blocks from the front of the queue; what they held is not found any more."""
        super().take(blocks)
        taken = min(blocks, self._front)
        self._front -= taken
        blocks -= taken
        while blocks:
            entry, there = self._queue.popitem(last=False)
            if isinstance(entry, _Block):
                self._forget(entry)
            elif there > blocks:
                self._queue[entry] = there - blocks
                self._queue.move_to_end(entry, last=False)
            blocks -= min(there, blocks)

    def _forget(self, block: _Block) -> None:
        copies = self._copies[block.key]
        del copies[block]
        if not copies:
            del self._copies[block.key]

    def give(self, blocks: int) -> None:
        """Give back blocks whose content is of no further use."""
        super().give(blocks)
        if self._unhashed_first:
            self._front += blocks
        elif blocks:
            self._queue[_Blank()] = blocks

    def match(self, request: Request) -> Match:
        """The leading blocks that are here; never the one with the last token, which is computed for something to
        sample from."""
        most = (request.total_tokens - 1) // self.block_tokens
        blocks = idle = 0
        for key in islice(chain(*request.block_keys), most):
            self._catch_up(key)
            copies = self._copies.get(key)
            if copies is None:
                break
            blocks += 1
            idle += next(iter(copies)).holders == 0
        return Match(blocks * self.block_tokens, blocks, idle)

    def hold(self, request: Request, match: Match) -> None:
        """Let a request hold the blocks it matched."""
        request.held = [next(iter(self._copies[key])) for key in islice(chain(*request.block_keys), match.blocks)]
        for block in request.held:
            if block.holders == 0:
                del self._queue[block]
            block.holders += 1
        self.free -= match.idle_blocks

    def computed(self, request: Request, tokens: int) -> None:
        """Hash the blocks that are now full, so that others find them from here on."""
        if request.held is None:
            request.held = []
        held = request.held
        for key in islice(chain(*request.block_keys), len(held), tokens // self.block_tokens):
            self._no_more_to_come(key, request)
            self._catch_up(key)
            block = _Block(key)
            self._copies.setdefault(key, {})[block] = None
            held.append(block)

    def _catch_up(self, key: int) -> None:
        """Hash what a decoding request has by now, if it is about to have a block of this key."""
        if key in self._answering:
            request, hashed_tokens = self._answering[key]
            self.computed(request, hashed_tokens(request))

    def _no_more_to_come(self, key: int, request: Request) -> None:
        if key in self._answering and self._answering[key][0] is request:
            del self._answering[key]

    def answers(self, request: Request, hashed_tokens: Callable[[Request], int]) -> None:
        """Note that a request decodes; the blocks of its answer are hashed when somebody looks for them, or at its end."""
        for key in islice(chain(*request.block_keys), len(request.held or ()), None):
            self._answering[key] = request, hashed_tokens

    def release(self, request: Request, tokens: int, hashed_tokens: int) -> None:
        """Take back all blocks of a request, the last first."""
        self.computed(request, hashed_tokens)
        for key in islice(chain(*request.block_keys), len(request.held), None):
            self._no_more_to_come(key, request)
        self.give(blocks_for(tokens, self.block_tokens) - len(request.held))
        for block in reversed(request.held):
            block.holders -= 1
            if block.holders == 0:
                self._queue[block] = 1
                self.free += 1
        request.held = None

    def violations(self) -> list[str]:
        """What of the pool's invariants does not hold."""
        found = super().violations()
        queued = self._front + sum(self._queue.values())
        if queued != self.free:
            found.append(f"E2: {queued} blocks are in line to be taken, {self.free} are free")
        hashed = [block for copies in self._copies.values() for block in copies]
        if any((block.holders == 0) != (block in self._queue) for block in hashed):
            found.append("E2: a hashed block is in line to be taken while it is held, or nowhere")
        return found
