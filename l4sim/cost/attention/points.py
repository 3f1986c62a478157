"""Attention measurements as columns, read from published tables: uniform, mixed and skewed batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill
from l4sim.cost.aiconfigurator import BF16
from l4sim.cost.points import read_points

IntArray = NDArray[np.int64]

_SKEW_LAUNCHES = 3


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


def read_decode_points(path: Path) -> UniformPoints:
    """Read aiconfigurator's decode table: ``step`` tokens are cached, one more is computed; milliseconds.

    Raises InputError if the file, a column or a value is not as expected.
    """
    return _read(path, "step", new_tokens=1)


def read_prefill_points(path: Path) -> UniformPoints:
    """Read aiconfigurator's prefill table: causal prompts of ``isl`` tokens; milliseconds.

    Raises InputError if the file, a column or a value is not as expected.
    """
    return _read(path, "isl", new_tokens=0)


def _read(path: Path, length: str, new_tokens: int) -> UniformPoints:
    names = ("batch_size", "num_heads", "num_key_value_heads", length, "latency")
    columns = read_points(path, names, only={"head_dim": "128"}, among=BF16)
    batch, heads, kv_heads, tokens = (columns[name].astype(np.int64) for name in names[:4])
    return UniformPoints(batch, heads, kv_heads, tokens + new_tokens, columns["latency"] * 1e-3)


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


def read_mixed_points(path: Path) -> MixedPoints:
    """Read LLMServingSim's ``attention.csv``: one layer, microseconds.

    Raises InputError if the file, a column or a value is not as expected.
    """
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    columns = read_points(path, ("time_us",), or_zero=names)
    chunk, cached, decodes, contexts = (columns[name].astype(np.int64) for name in names)
    return MixedPoints(chunk, cached, decodes, contexts + 1, columns["time_us"] * 1e-6)


def read_skew_points(path: Path) -> SkewPoints:
    """Read LLMServingSim's ``skew.csv``: sums of three launches of one layer, microseconds.

    Raises InputError if the file, a column or a value is not as expected.
    """
    names = ("n", "nb", "kvs", "kv_big", "kv_mean", "t_mean_us", "t_max_us", "t_skew_us")
    columns = read_points(path, names, or_zero=("pc", "kp"))
    n, big, short, long, mean, chunk, cached = (columns[k].astype(np.int64) for k in (*names[:5], "pc", "kp"))
    seconds = (columns[name] * 1e-6 / _SKEW_LAUNCHES for name in names[5:])
    return SkewPoints(n, big, short + 1, long + 1, mean + 1, chunk, cached, *seconds)


def no_skew_points() -> SkewPoints:
    """What a profile has that measured no skewed batches."""
    count, seconds = np.empty(0, np.int64), np.empty(0)
    return SkewPoints(count, count, count, count, count, count, count, seconds, seconds, seconds)


def _batch(contexts: IntArray, chunk_tokens: int, cached_tokens: int) -> Batch:
    prefills = (Prefill(chunk_tokens, cached_tokens),) if chunk_tokens else ()
    return Batch(contexts, int(contexts.sum()), prefills)
