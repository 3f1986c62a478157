"""Attention held to what batches of equal lengths were measured to take; unequal ones differ as the kernel splits."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import exp, log2

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.cost.model import AttentionModel
from l4sim.cost.tables.table import FloatArray, IntArray

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Ratios:
    """Measured over modelled seconds of uniform batches, by requests and length: bilinear in their logarithms."""

    batch: tuple[float, ...]
    """Log2 of requests, ascending."""
    length: tuple[float, ...]
    """Log2 of tokens, ascending."""
    logs: tuple[tuple[float, ...], ...]
    """Logarithms of the ratio, shape ``[batch][length]``."""

    def at(self, requests: float, tokens: float) -> float:
        """The ratio of so many requests of a length; beyond what was measured that of the nearest batch."""
        low, share = _place(self.batch, log2(requests))
        left, part = _place(self.length, log2(tokens))
        one, other = self.logs[low], self.logs[min(low + 1, len(self.logs) - 1)]
        right = min(left + 1, len(one) - 1)
        first = one[left] + part * (one[right] - one[left])
        second = other[left] + part * (other[right] - other[left])
        return exp(first + share * (second - first))


def _place(knots: tuple[float, ...], value: float) -> tuple[int, float]:
    """The knot below a value, and the share of the way to the next; clamped at both ends."""
    if value <= knots[0]:
        return 0, 0.0
    if value >= knots[-1]:
        return len(knots) - 1, 0.0
    index = bisect_right(knots, value) - 1
    return index, (value - knots[index]) / (knots[index + 1] - knots[index])


def ratios(batch: IntArray, length: IntArray, measured_s: FloatArray, modelled_s: FloatArray) -> Ratios:
    """Ratios on a grid, of arrays of shape ``[batch, length]``; what was not measured is as the nearest that was.

    Nearest by octaves of requests and of length together.
    """
    logs = np.log(measured_s / modelled_s)
    known = np.isfinite(logs)
    x, y = np.log2(np.maximum(batch, 1)), np.log2(np.maximum(length, 1))
    at = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
    sites, values = at[known], logs[known]
    apart = np.abs(at[:, :, None, :] - sites).sum(axis=-1)
    filled = np.where(known, logs, values[np.argmin(apart, axis=-1)])
    return Ratios(tuple(x.tolist()), tuple(y.tolist()), tuple(tuple(row) for row in filled.tolist()))


@dataclass(frozen=True, slots=True)
class AnchoredAttention:
    """An ``AttentionModel``: the kernel's own, times what uniform batches were measured to take more or less than it.

    A batch's ratio is that of as many requests of their mean length: unequal lengths change the seconds as they change
    the kernel's own. Of a batch of both kinds the ratios are weighed by what either takes alone.
    """

    tile: AttentionModel
    decode: Ratios
    prefill: Ratios

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        count = len(batch.decode_context_tokens)
        seconds = self.tile.attention_s(batch)
        if not batch.prefills:
            return seconds * self.decode.at(count, batch.decode_context_sum / count) if count else seconds
        prompts = self.prefill.at(len(batch.prefills), _mean_tokens(batch.prefills))
        if not count:
            return seconds * prompts
        decodes = self.decode.at(count, batch.decode_context_sum / count)
        decodes_s = self.tile.attention_s(Batch(batch.decode_context_tokens, batch.decode_context_sum))
        prompts_s = self.tile.attention_s(Batch(_NONE, 0, batch.prefills))
        return seconds * (decodes * decodes_s + prompts * prompts_s) / (decodes_s + prompts_s)


def _mean_tokens(prefills: tuple[Prefill, ...]) -> float:
    return sum([chunk.chunk_tokens for chunk in prefills]) / len(prefills)


def uniform_decodes(requests: int, tokens: int) -> Batch:
    """So many decoding requests of one context."""
    return Batch(np.full(requests, tokens, dtype=np.int64), requests * tokens)


def uniform_prompts(requests: int, tokens: int) -> Batch:
    """So many prompts of one length, nothing of them cached."""
    return Batch(_NONE, 0, (Prefill(tokens, 0),) * requests)
