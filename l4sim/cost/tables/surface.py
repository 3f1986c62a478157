"""Measured seconds over requests and their length, between the points and beyond them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l4sim.cost.tables.table import OperatorTable, along


@dataclass(frozen=True, slots=True)
class Surface:
    """Seconds of batches of equal requests: bilinear between what was measured.

    What was not measured on the grid is told along the lengths of as many requests (`along`), and where there are none
    along the requests. Beyond the grid seconds grow on as they do between its last points; below it they are its first.
    """

    batch: tuple[float, ...]
    length: tuple[float, ...]
    seconds: tuple[tuple[float, ...], ...]
    """Shape ``[batch][length]``."""

    def at(self, requests: float, tokens: float) -> float:
        """Seconds of so many requests of a length."""
        low, share = _place(self.batch, requests)
        left, part = _place(self.length, tokens)
        one, other = self.seconds[low], self.seconds[min(low + 1, len(self.seconds) - 1)]
        right = min(left + 1, len(one) - 1)
        first = one[left] + part * (one[right] - one[left])
        second = other[left] + part * (other[right] - other[left])
        return first + share * (second - first)


def _place(knots: tuple[float, ...], value: float) -> tuple[int, float]:
    """The knot at or below a value, and the share of the way to the next, which is above 1 beyond the last."""
    if value <= knots[0] or len(knots) == 1:
        return 0, 0.0
    index = min(bisect_right(knots, value) - 1, len(knots) - 2)
    return index, (value - knots[index]) / (knots[index + 1] - knots[index])


def surface_of(table: OperatorTable, rows: Sequence[int]) -> Surface:
    """The surface of a table's row, or of several kernels' rows that are run one after the other."""
    batch, length = table.axes["batch"], table.axes["length"]
    filled = np.sum([_filled(table, row) for row in rows], axis=0)
    return Surface(
        tuple(map(float, batch)), tuple(map(float, length)), tuple(tuple(map(float, each)) for each in filled)
    )


def _filled(table: OperatorTable, row: int) -> np.typing.NDArray[np.float64]:
    batch, length = table.axes["batch"], table.axes["length"]
    seconds = table.seconds[row].copy()
    for known in seconds:
        if np.isfinite(known).sum() > 1:
            missing = ~np.isfinite(known)
            known[missing] = along(length, known, length[missing])
    for column in seconds.T:
        missing = ~np.isfinite(column)
        if missing.any():
            column[missing] = along(batch, column, batch[missing])
    return np.asarray(seconds)
