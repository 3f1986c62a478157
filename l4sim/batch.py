"""What one iteration computes: the batch as it is, every length in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Prefill(NamedTuple):
    """One request's share of prompt tokens in an iteration."""

    chunk_tokens: int
    """Prompt tokens computed in this iteration, >= 1."""
    cached_tokens: int
    """Tokens of the request whose KV is there already (earlier chunks, prefix cache)."""
    samples: bool = True
    """Whether the chunk ends the prompt, so that a token is sampled (lm_head runs for it)."""


class Batch(NamedTuple):
    """One iteration's work on one instance.

    A decoding request computes one token and attends to its whole context; ``decode_context_tokens`` counts that
    token in. The order is the engine's own: kernels issue their blocks in it.
    """

    decode_context_tokens: NDArray[np.int64]
    """Shape ``[n_decode]``. A view into the engine's buffer: read it now or copy it, never write to it."""
    decode_context_sum: int
    """The sum of ``decode_context_tokens``, kept by the engine so that cheap models need not add."""
    prefills: tuple[Prefill, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that the linear layers see: one per decoding request and all prefill chunks."""
        return len(self.decode_context_tokens) + sum([chunk.chunk_tokens for chunk in self.prefills])

    @property
    def sampled(self) -> int:
        """Sequences that sample a token (rows of the lm_head)."""
        return len(self.decode_context_tokens) + sum([chunk.samples for chunk in self.prefills])


def same_batch(one: Batch, other: Batch) -> bool:
    """Whether two batches compute the same."""
    contexts = one.decode_context_tokens, other.decode_context_tokens
    return one.prefills == other.prefills and np.array_equal(*contexts)
