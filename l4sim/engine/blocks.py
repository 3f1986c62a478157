"""Paged KV memory as counts of blocks; what blocks hold matters only to the prefix cache (`prefix_cache.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from l4sim.engine.request import Request


class Match(NamedTuple):
    """How much of a request's context is in the prefix cache."""

    tokens: int
    """Leading tokens that need not be computed."""
    blocks: int
    """Blocks that hold them."""
    idle_blocks: int
    """How many of these no request holds now, so that taking them uses up free blocks."""


NO_MATCH = Match(0, 0, 0)


class CacheLog:
    """What has become of cached blocks since somebody last looked: vLLM's KV events, less those that are undone."""

    __slots__ = ("removed", "stored")

    def __init__(self) -> None:
        self.stored: dict[int, None] = {}
        """Keys of blocks that are found from now on."""
        self.removed: dict[int, None] = {}
        """Keys of blocks that are found no more."""

    def store(self, key: int) -> None:
        """A block can be found."""
        if key in self.removed:
            del self.removed[key]
        else:
            self.stored[key] = None

    def remove(self, key: int) -> None:
        """A block has been taken for something else."""
        if key in self.stored:
            del self.stored[key]
        else:
            self.removed[key] = None

    def drain(self) -> tuple[list[int], list[int]]:
        """What was stored and what was removed; the log is empty afterwards."""
        drained = list(self.stored), list(self.removed)
        self.stored.clear()
        self.removed.clear()
        return drained


def blocks_for(tokens: int, block_tokens: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return -(-tokens // block_tokens)


class BlockPool:
    """Free and used blocks of one instance, without a prefix cache."""

    def __init__(self, total: int, block_tokens: int) -> None:
        self.total = total
        self.block_tokens = block_tokens
        self.free = total
        """Blocks that no request holds."""
        self.log: CacheLog | None = None
        """Where a prefix cache notes what it stores and removes, if anybody wants to know."""

    def take(self, blocks: int) -> None:
        """Take free blocks; the caller has seen that there are enough."""
        if blocks > self.free:
            raise AssertionError(f"took {blocks} blocks of {self.free} free")
        self.free -= blocks

    def give(self, blocks: int) -> None:
        """Give back blocks whose content is of no further use."""
        self.free += blocks

    def match(self, request: Request) -> Match:
        """What the prefix cache has of a request's context."""
        return NO_MATCH

    def hold(self, request: Request, match: Match) -> None:
        """Let a request hold the blocks it matched."""

    def computed(self, request: Request, tokens: int) -> None:
        """Note that the first ``tokens`` tokens of a request are in its blocks, for others to find."""

    def answers(self, request: Request, hashed_tokens: Callable[[Request], int]) -> None:
        """Note that a request decodes: ``hashed_tokens`` tells how many of its tokens others may find by now."""

    def release(self, request: Request, tokens: int, hashed_tokens: int) -> None:
        """Take back all blocks of a request whose context is ``tokens`` long.

        ``hashed_tokens``: those whose full blocks may be found again, by itself or by others.
        """
        self.free += blocks_for(tokens, self.block_tokens)

    def violations(self) -> list[str]:
        """What of the pool's invariants does not hold."""
        return [] if 0 <= self.free <= self.total else [f"E1: {self.free} of {self.total} blocks are free"]
