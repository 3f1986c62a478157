"""A cost model that is affine in a batch's token counts: linear interpolation between iterations is exact for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.cost.model import CostModel

# About what one GPU's KV cache holds: larger decode batches would weigh in a fit and never occur.
_GRID_CONTEXT_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class AffineCost:
    """A ``CostModel``: a constant, and seconds per sequence, prefill token, context token and query-key pair."""

    base_s: float
    per_sequence_s: float = 0.0
    """Per decoding request."""
    per_prefill_token_s: float = 0.0
    per_context_token_s: float = 0.0
    """Per context token of a decoding request."""
    per_prefill_pair_s: float = 0.0
    """Per pair of a prefill token and a token that it attends to."""

    def iteration_s(self, batch: Batch) -> float:
        """Seconds of one iteration."""
        prefill_s = sum(
            self.per_prefill_token_s * chunk.chunk_tokens + self.per_prefill_pair_s * _pairs(chunk)
            for chunk in batch.prefills
        )
        return self._decode_s(len(batch.decode_context_tokens), batch.decode_context_sum) + prefill_s

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        """Seconds of the first and the last of ``iterations`` decode iterations in a row."""
        rows = len(batch.decode_context_tokens)
        last_sum = batch.decode_context_sum + (iterations - 1) * rows
        return self._decode_s(rows, batch.decode_context_sum), self._decode_s(rows, last_sum)

    def _decode_s(self, rows: int, context_sum: int) -> float:
        return self.base_s + self.per_sequence_s * rows + self.per_context_token_s * context_sum


def fit_affine(cost: CostModel, *, max_sequences: int, max_tokens: int, max_context_tokens: int) -> AffineCost:
    """The affine model nearest to another one: least squares of relative error over a small grid of batches.

    Decode batches of 1 to ``max_sequences`` equal contexts up to ``max_context_tokens``, and single prefill chunks up
    to ``max_tokens`` on nothing and on long cached prefixes. No coefficient is negative.
    """
    from scipy.optimize import nnls

    most_chunk = min(max_tokens, max_context_tokens)
    batches = [
        _uniform(sequences, context)
        for sequences in _powers(1, max_sequences)
        for context in _powers(min(64, max_context_tokens), max_context_tokens)
        if sequences * context <= _GRID_CONTEXT_TOKENS
    ]
    batches += [
        Batch(np.empty(0, dtype=np.int64), 0, (Prefill(chunk, cached),))
        for chunk in _powers(min(64, most_chunk), most_chunk)
        for cached in (0, *_powers(1024, max_context_tokens - chunk))
    ]
    seconds = np.array([cost.iteration_s(batch) for batch in batches])
    terms = np.array([_terms(batch) for batch in batches])
    # Columns differ by ten orders of magnitude: scaled to one, lest the solver's tolerance drop the small ones.
    scale = terms.max(axis=0)
    coefficients, _ = nnls(terms / scale / seconds[:, None], np.ones(len(seconds)))
    return AffineCost(*(coefficients / scale).tolist())


def _terms(batch: Batch) -> tuple[float, ...]:
    return (
        1.0,
        len(batch.decode_context_tokens),
        sum(chunk.chunk_tokens for chunk in batch.prefills),
        batch.decode_context_sum,
        sum(_pairs(chunk) for chunk in batch.prefills),
    )


def _pairs(chunk: Prefill) -> float:
    """Query-key pairs under the causal mask."""
    return chunk.chunk_tokens * (chunk.cached_tokens + (chunk.chunk_tokens + 1) / 2)


def _uniform(sequences: int, context_tokens: int) -> Batch:
    return Batch(np.full(sequences, context_tokens, dtype=np.int64), sequences * context_tokens)


def _powers(first: int, last: int) -> Sequence[int]:
    """Powers of four times ``first``, up to ``last``; empty if there is none."""
    values = []
    while first <= last:
        values.append(first)
        first *= 4
    return values
