"""Attention measurements: columns of uniform batches, read from published tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.points import read_points

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
    columns = read_points(path, names, only={"head_dim": "128"})
    batch, heads, kv_heads, tokens = (columns[name].astype(np.int64) for name in names[:4])
    return UniformPoints(batch, heads, kv_heads, tokens + new_tokens, columns["latency"] * 1e-3)
