"""What every fit of measured points shares: impossible points, held-out points, errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from l4sim.specs.gpu import GPU

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_PART = 5


def beats_roofline(seconds: ArrayLike, size_bytes: ArrayLike, flops: ArrayLike, gpu: GPU) -> BoolArray:
    """Flag points that are faster than the GPU's peak bandwidth or peak arithmetic allows.

    All three are of shape ``[points]``; ``size_bytes`` counts what must cross the memory bus at least once.
    """
    floor_s = np.maximum(np.asarray(size_bytes) / gpu.memory_bytes_per_s, np.asarray(flops) / gpu.bf16_flops)
    flags: BoolArray = np.asarray(seconds) < floor_s
    return flags


def held_out(points: int, seed: int = 0) -> BoolArray:
    """A seeded fifth of so many points, as a mask of shape ``[points]``."""
    mask = np.zeros(points, dtype=np.bool_)
    mask[np.random.default_rng(seed).permutation(points)[: points // 5]] = True
    return mask


def held_out_fifth(keys: tuple[NDArray[np.int64], ...], seed: int = 0) -> BoolArray:
    """A seeded fifth, one point of each five neighbours in the order of ``keys`` (arrays of shape ``[points]``)."""
    order = np.lexsort(keys[::-1])
    first = np.arange(0, len(order), _PART)
    chosen = first + np.random.default_rng(seed).integers(_PART, size=len(first))
    mask = np.zeros(len(order), dtype=np.bool_)
    mask[order[chosen[chosen < len(order)]]] = True
    return mask


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of a fit on points that it has not seen."""

    points: int
    """Held-out points."""
    flagged: int
    """Points left out of fit and errors because they beat the roofline."""
    mape_pct: float
    """Mean absolute percentage error."""
    median_pct: float
    p90_pct: float
    worst_pct: float

    def to_json(self) -> dict[str, float]:
        """As plain numbers by field name, rounded to a hundredth."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


class Report(Protocol):
    """Errors on held-out points, of whatever kind."""

    def to_json(self) -> dict[str, float]:
        """As plain numbers by field name, rounded to a hundredth."""
        ...


def errors(predicted_s: FloatArray, measured_s: FloatArray, flagged: int) -> Errors:
    """Compare predictions with measurements, both of shape ``[points]``, in seconds."""
    error_pct = 100 * np.abs(predicted_s / measured_s - 1)
    return Errors(
        points=len(error_pct),
        flagged=flagged,
        mape_pct=float(error_pct.mean()),
        median_pct=float(np.median(error_pct)),
        p90_pct=float(np.quantile(error_pct, 0.9)),
        worst_pct=float(error_pct.max()),
    )


@dataclass(frozen=True, slots=True)
class FitReport:
    """Errors of a fit on points that it has not seen, by kind of batch (``decode``, ``prefill``, ...)."""

    errors: Mapping[str, Report]

    def to_json(self) -> dict[str, dict[str, float]]:
        """As plain numbers."""
        return {kind: errors.to_json() for kind, errors in self.errors.items()}
