"""Groups of layers that share tables of KV blocks: what of a context each keeps, and when it is found again.

After vLLM's `v1/core/single_type_kv_cache_manager.py` and `v1/kv_cache_interface.py` (0.32). A model whose layers all
keep every token has one table of blocks per request. Others have a table per group of layers; the blocks of all groups
are of one size in bytes and come from one pool, so a block may hold many tokens of few layers, or few of many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from l4sim.errors import InputError

Kind = Literal["full", "window", "chunk", "state"]
"""Whether a group's layers keep every token, those in a sliding window, those of the current chunk, or a state."""


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Groups of layers that are alike: their tables have the same lengths, in blocks of their own.

    Raises:
        InputError: a number below 1, or a window that a kind without one has, or one with lacks.
    """

    kind: Kind
    block_tokens: int
    """Tokens per block."""
    window_tokens: int = 0
    """Of a sliding window (with the token itself) or a chunk."""
    count: int = 1
    """How many groups."""

    def __post_init__(self) -> None:
        if self.block_tokens < 1 or self.count < 1 or self.window_tokens < 0:
            raise InputError(f"KV group {self}: accepted are whole numbers of at least 1")
        if (self.window_tokens > 0) != (self.kind in ("window", "chunk")):
            raise InputError(f"KV group {self}: a window or chunk has window_tokens, and nothing else has")

    def passed_blocks(self, tokens: int) -> int:
        """Leading blocks that nothing looks at any more once so many tokens are computed."""
        match self.kind:
            case "full":
                passed = 0
            case "window":
                passed = tokens - self.window_tokens + 1
            case "chunk":
                passed = tokens // self.window_tokens * self.window_tokens
            case "state":
                passed = tokens - 1
        return max(passed, 0) // self.block_tokens

    @property
    def hit_blocks(self) -> int:
        """Blocks in a row that a sliding window needs to go on behind them."""
        return -(-(self.window_tokens - 1) // self.block_tokens)

    def new_blocks(self, blocks: int) -> int:
        """How many of so many further blocks are taken: a state takes the last alone."""
        return min(blocks, 1) if self.kind == "state" else blocks

    def most_blocks(self, in_flight_tokens: int, max_model_len: int) -> int | None:
        """The most that one request is taken to hold when it is admitted; None if all that it needs.

        ``in_flight_tokens``: those of the iterations that may be under way at once, at most; what they look at stays.
        """
        if self.kind == "window":
            tokens = min(self.window_tokens - 1 + in_flight_tokens, max_model_len)
            # The window may begin in the middle of a block.
            return -(-tokens // self.block_tokens) + 1
        if self.kind == "chunk":
            return -(-min(self.window_tokens + in_flight_tokens, max_model_len) // self.block_tokens)
        return None

    def held_blocks(self, tokens: int) -> int:
        """Blocks that a context of so many tokens holds, all of them computed, in all the groups together."""
        held = -(-tokens // self.block_tokens) - self.passed_blocks(tokens)
        return self.count * self.new_blocks(held)
