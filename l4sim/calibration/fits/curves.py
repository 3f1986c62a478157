"""Curves of few knots through measured points."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.curve import Curve

FloatArray = NDArray[np.float64]
C = TypeVar("C", bound=Curve)


def thinned_curve(kind: type[C], sizes: FloatArray, seconds: FloatArray, tolerance: float) -> C:
    """A curve through few of the points (shape ``[points]``, sizes ascending), within a relative tolerance of all."""
    knots = thin(sizes, seconds, tolerance)
    return kind(tuple(sizes[knots].tolist()), tuple(seconds[knots].tolist()))


def thin(x: FloatArray, y: FloatArray, tolerance: float) -> NDArray[np.int64]:
    """Indices of few points between which linear interpolation stays within a relative ``tolerance`` of all others.

    ``x`` (ascending) and ``y`` (above 0) are of shape ``[points]``. Greedy from the left: each kept point is the
    furthest that can be reached from the one before; the first and the last are always kept.
    """
    kept = [0]
    while kept[-1] < len(x) - 1:
        start = kept[-1]
        kept.append(next(end for end in range(len(x) - 1, start, -1) if _spans(x, y, start, end, tolerance)))
    return np.array(kept)


def _spans(x: FloatArray, y: FloatArray, start: int, end: int, tolerance: float) -> bool:
    inner = slice(start + 1, end)
    straight = np.interp(x[inner], (x[start], x[end]), (y[start], y[end]))
    return bool(np.all(np.abs(straight / y[inner] - 1) <= tolerance))
