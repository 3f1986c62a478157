"""Attention models that see less than every context length, made of one that sees all: ``mean``, ``sum``, ``skew``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch
from l4sim.cost.model import AttentionModel

_LONG_TOKENS = 16384
_MANY = 64


def uniform(batch: Batch, tokens: int) -> Batch:
    """The batch with every decoding request at so many context tokens; prefills as they are."""
    count = len(batch.decode_context_tokens)
    return Batch(np.full(count, tokens, np.int64), count * tokens, batch.prefills)


@dataclass(frozen=True, slots=True)
class MeanAttention:
    """Takes every decoding request to be as long as the mean one (rounded up)."""

    tile: AttentionModel

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer."""
        count = len(batch.decode_context_tokens)
        return self.tile.attention_s(uniform(batch, -(-batch.decode_context_sum // count)) if count else batch)


@dataclass(frozen=True, slots=True)
class SkewAttention:
    """t(mean) + alpha * (t(max) - t(mean)), where t(x) has all decodes at length x. Source: LLMServingSim."""

    tile: AttentionModel
    alpha: float

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer."""
        count = len(batch.decode_context_tokens)
        if not count:
            return self.tile.attention_s(batch)
        mean_s = self.tile.attention_s(uniform(batch, -(-batch.decode_context_sum // count)))
        longest_s = self.tile.attention_s(uniform(batch, int(batch.decode_context_tokens.max())))
        return mean_s + self.alpha * (longest_s - mean_s)


@dataclass(frozen=True, slots=True)
class SumAttention:
    """Decodes cost a constant and a time per context token, however the tokens are spread; prefills are added."""

    tile: AttentionModel
    base_s: float
    token_s: float

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer."""
        seconds = self.token_s * batch.decode_context_sum
        if batch.prefills:
            return seconds + self.tile.attention_s(Batch(np.empty(0, np.int64), 0, batch.prefills))
        return seconds + self.base_s if batch.decode_context_sum else 0.0


def sum_attention(tile: AttentionModel) -> SumAttention:
    """Calibrate ``sum`` with two uniform batches of ``tile``: the shortest, and one that memory bandwidth bounds."""
    shortest = Batch(np.ones(1, np.int64), 1)
    base_s = tile.attention_s(shortest)
    long = uniform(Batch(np.empty(_MANY, np.int64), 0), _LONG_TOKENS)
    return SumAttention(tile, base_s, (tile.attention_s(long) - base_s) / long.decode_context_sum)
