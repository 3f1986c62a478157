"""What attention in windows and chunks sees of a batch: lengths that end where the window does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.cost.model import AttentionModel

_TILE_ROWS = 128
"""Rows of queries that kernels take together, and for which they load a window and as many tokens more (FA3)."""
_PIECES = 8
"""A prompt's rows are told in pieces of an eighth of the window at least: shorter ones change nothing that is seen."""


@dataclass(frozen=True, slots=True)
class WindowedAttention:
    """An ``AttentionModel``: a kernel's own, of what a window or chunk lets it see of each request."""

    full: AttentionModel
    window_tokens: int
    chunked: bool = False

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer."""
        return self.full.attention_s(seen(batch, self.window_tokens, chunked=self.chunked))


def seen(batch: Batch, window_tokens: int, *, chunked: bool = False) -> Batch:
    """The batch of full attention that takes what this one takes in a window.

    A token that decodes loads its window, or its chunk up to itself. Of a prompt, every tile of rows loads the window
    before its first row, and its own tokens: rows are told as prompts of their own that go on behind a window.
    """
    contexts = batch.decode_context_tokens
    if len(contexts):
        contexts = (contexts - 1) % window_tokens + 1 if chunked else np.minimum(contexts, window_tokens)
    split = _in_chunks if chunked else _in_window
    prefills = tuple([piece for chunk in batch.prefills for piece in split(chunk, window_tokens)])
    return Batch(contexts, int(contexts.sum()), prefills)


def _in_window(chunk: Prefill, window_tokens: int) -> Iterator[Prefill]:
    left, done = chunk.chunk_tokens, chunk.cached_tokens
    if done < window_tokens:
        # Up to the end of the first window it is as without.
        first = min(left, window_tokens - done)
        yield Prefill(first, done)
        left -= first
    rows = _TILE_ROWS * max(-(-window_tokens // (_PIECES * _TILE_ROWS)), 1)
    # What tiles of a piece see on average, beside themselves.
    before = window_tokens - (rows - _TILE_ROWS) // 2
    while left > 0:
        yield Prefill(min(rows, left), before)
        left -= rows


def _in_chunks(chunk: Prefill, chunk_tokens: int) -> Iterator[Prefill]:
    left, done = chunk.chunk_tokens, chunk.cached_tokens % chunk_tokens
    while left > 0:
        taken = min(left, chunk_tokens - done)
        yield Prefill(taken, done)
        left, done = left - taken, 0
