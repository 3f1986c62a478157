"""Attention measurements as columns: uniform, mixed and skewed batches, as published tables hold them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UniformPoints:
    """Batches of equal requests; all arrays are of shape ``[points]``."""

    batch: IntArray
    """Requests."""
    heads: IntArray
    kv_heads: IntArray
    tokens: IntArray
    """Context tokens of each request (decode: the new token included; prefill: the whole prompt)."""
    seconds: NDArray[np.float64]
    head_dim: int = 128

    def __len__(self) -> int:
        return len(self.seconds)

    def where(self, mask: NDArray[np.bool_]) -> UniformPoints:
        """The points that a mask of shape ``[points]`` selects."""
        return replace(
            self,
            batch=self.batch[mask],
            heads=self.heads[mask],
            kv_heads=self.kv_heads[mask],
            tokens=self.tokens[mask],
            seconds=self.seconds[mask],
        )


@dataclass(frozen=True, slots=True)
class UniformTables:
    """Batches of equal decodes and of equal prompts, over many shapes of attention."""

    kind: ClassVar[str] = "uniform points"

    decode: UniformPoints
    prefill: UniformPoints


@dataclass(frozen=True, slots=True)
class MixedPoints:
    """Batches of uniform decodes beside at most one prefill chunk; all arrays are of shape ``[points]``."""

    chunk_tokens: IntArray
    """0 where there is no prefill."""
    cached_tokens: IntArray
    decodes: IntArray
    context_tokens: IntArray
    """Context of each decoding request, its new token included."""
    seconds: NDArray[np.float64]

    def batch(self, index: int) -> Batch:
        """One point as a batch."""
        contexts = np.full(self.decodes[index], self.context_tokens[index], np.int64)
        return _batch(contexts, int(self.chunk_tokens[index]), int(self.cached_tokens[index]))


@dataclass(frozen=True, slots=True)
class SkewPoints:
    """Decodes of two lengths, beside at most one prefill chunk; all arrays are of shape ``[points]``."""

    decodes: IntArray
    long: IntArray
    """How many of the decodes are long."""
    short_tokens: IntArray
    """Contexts, the new token included, as are ``long_tokens`` and ``mean_tokens``."""
    long_tokens: IntArray
    mean_tokens: IntArray
    chunk_tokens: IntArray
    cached_tokens: IntArray
    mean_s: NDArray[np.float64]
    """Measured with all decodes at ``mean_tokens``."""
    longest_s: NDArray[np.float64]
    """Measured with all decodes at ``long_tokens``."""
    seconds: NDArray[np.float64]

    def batch(self, index: int) -> Batch:
        """One point as a batch, the long decodes last."""
        contexts = np.full(self.decodes[index], self.short_tokens[index], np.int64)
        contexts[len(contexts) - int(self.long[index]) :] = self.long_tokens[index]
        return _batch(contexts, int(self.chunk_tokens[index]), int(self.cached_tokens[index]))

    def mean_batch(self, index: int) -> Batch:
        """The same with all decodes at the mean length."""
        contexts = np.full(self.decodes[index], self.mean_tokens[index], np.int64)
        return _batch(contexts, int(self.chunk_tokens[index]), int(self.cached_tokens[index]))


@dataclass(frozen=True, slots=True)
class ProfiledBatches:
    """One model's attention on one rank: uniform and mixed batches, and maybe skewed ones."""

    kind: ClassVar[str] = "mixed points"

    mixed: MixedPoints
    skewed: SkewPoints | None
    heads: int
    """Of the rank, as are ``kv_heads``."""
    kv_heads: int
    head_dim: int


def no_skew_points() -> SkewPoints:
    """No points: what a folder without skewed batches has."""
    count, seconds = np.empty(0, np.int64), np.empty(0)
    return SkewPoints(count, count, count, count, count, count, count, seconds, seconds, seconds)


def _batch(contexts: IntArray, chunk_tokens: int, cached_tokens: int) -> Batch:
    prefills = (Prefill(chunk_tokens, cached_tokens),) if chunk_tokens else ()
    return Batch(contexts, int(contexts.sum()), prefills)
