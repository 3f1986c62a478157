"""Measured curves: seconds over a size, linear between few knots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds over a size (tokens, sequences, bytes): constant below the first knot, proportional beyond the last."""

    sizes: tuple[float, ...]
    """Ascending."""
    seconds: tuple[float, ...]

    def at(self, sizes: ArrayLike) -> FloatArray:
        """Seconds at so many sizes, of their shape."""
        size = np.asarray(sizes, dtype=np.float64)
        within = np.interp(size, self.sizes, self.seconds)
        return np.asarray(np.where(size > self.sizes[-1], within * size / self.sizes[-1], within))
