"""Seconds that reading bytes takes at full bandwidth: DRAM is slower at first, and L2 may still hold some of them."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from l4sim.cost.attention.fluid import FloatArray

_FAR_BYTES = 1e15


class MemoryTable(NamedTuple):
    """Seconds over bytes, linear between knots, the first of which is at 0."""

    size_bytes: tuple[float, ...]
    seconds: tuple[float, ...]

    def at(self, size_bytes: float) -> float:
        """Seconds for so many bytes."""
        sizes, seconds = self.size_bytes, self.seconds
        right = bisect_right(sizes, size_bytes)
        left = right - 1
        share = (size_bytes - sizes[left]) / (sizes[right] - sizes[left])
        return seconds[left] + share * (seconds[right] - seconds[left])

    def at_all(self, size_bytes: FloatArray) -> FloatArray:
        """Seconds for each of many sizes, of their shape."""
        return np.asarray(np.interp(size_bytes, self.size_bytes, self.seconds))


def memory_table(
    *,
    dram_bytes_per_s: float,
    ramp_bytes_per_s: float,
    ramp_bytes: float,
    cached_bytes: float = 0.0,
    cached_bytes_per_s: float = np.inf,
) -> MemoryTable:
    """The first ``ramp_bytes`` from DRAM come at ``ramp_bytes_per_s``, the others at ``dram_bytes_per_s``.

    Up to ``cached_bytes`` are still in L2; when twice as many are read in turn, each pushes out another before its use.
    """
    size_bytes = np.array([0.0, cached_bytes, 2 * cached_bytes, max(ramp_bytes, 2 * cached_bytes), _FAR_BYTES])
    missed = np.minimum(size_bytes, np.maximum(0.0, 2.0 * (size_bytes - cached_bytes)))
    ramp = np.minimum(missed, ramp_bytes)
    dram_s = ramp / ramp_bytes_per_s + (missed - ramp) / dram_bytes_per_s
    seconds = dram_s + (size_bytes - missed) / cached_bytes_per_s
    return MemoryTable(tuple(size_bytes.tolist()), tuple(seconds.tolist()))
