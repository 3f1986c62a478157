"""One operator's measured seconds: rows by kind and size, over one or two axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TextArray = NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class OperatorTable:
    """What one version of an engine takes for one operator on one GPU.

    Each row is one kind and size of the operator: a number format, a matrix's ``n`` and ``k``. Over the axes stand
    tokens, or a batch's requests and their length, all requests being equally long.
    """

    name: str
    kinds: Mapping[str, TextArray]
    """Texts by row: number formats, kernels; each of shape ``[rows]``."""
    sizes: Mapping[str, IntArray]
    """Whole numbers by row; each of shape ``[rows]``."""
    axes: Mapping[str, IntArray]
    """Ascending points of one axis, or of two."""
    seconds: FloatArray
    """Shape ``[rows, points of each axis]``; NaN where nothing was measured."""
    source: str = ""
    engine: str = ""
    """Name and version, as in ``vLLM 0.25.0``."""
    errors: Mapping[str, Any] = field(default_factory=dict)
    """Held-out errors by what was held out."""

    def __len__(self) -> int:
        return len(self.seconds)

    def where(self, **given: str | int | tuple[str | int, ...]) -> OperatorTable:
        """The rows whose kinds and sizes have these values, or one of them where several are given."""
        mask = np.ones(len(self), dtype=np.bool_)
        for name, value in given.items():
            accepted = value if isinstance(value, tuple) else (value,)
            mask &= np.isin(self.kinds[name] if name in self.kinds else self.sizes[name], accepted)
        return self.rows(mask)

    def rows(self, mask: ArrayLike) -> OperatorTable:
        """The rows that a mask, or numbers of rows, select."""
        chosen = np.asarray(mask)
        return replace(
            self,
            kinds={name: values[chosen] for name, values in self.kinds.items()},
            sizes={name: values[chosen] for name, values in self.sizes.items()},
            seconds=self.seconds[chosen],
        )

    def along(self, row: int, points: ArrayLike) -> FloatArray:
        """Seconds of a row at points of its one axis, of their shape; as `along`."""
        (axis,) = self.axes.values()
        return along(axis, self.seconds[row], points)


def along(axis: ArrayLike, seconds: FloatArray, points: ArrayLike) -> FloatArray:
    """Seconds at points of an axis, of their shape: linear between what was measured.

    Below the first measured point it takes as long as there; beyond the last it grows on as it does between the last
    point and the one nearest to half of it, and at least not less than there. Source: ours; linear in tokens and not in
    logarithms, as the publishers of such a table found to be more right.
    """
    known = np.isfinite(seconds)
    size, taken = np.asarray(axis, dtype=np.float64)[known], seconds[known]
    if not len(size):
        return np.full(np.shape(points), np.nan)
    at = np.asarray(points, dtype=np.float64)
    within = np.interp(at, size, taken)
    last = size[-1]
    half = int(np.argmin(np.abs(size[:-1] - last / 2))) if len(size) > 1 else 0
    slope = max(0.0, (taken[-1] - taken[half]) / (last - size[half])) if len(size) > 1 else taken[-1] / last
    return np.asarray(np.where(at > last, taken[-1] + slope * (at - last), within))
