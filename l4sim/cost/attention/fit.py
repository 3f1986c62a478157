"""What the kernels' fits share: bytes and arithmetic of points, held-out points, least squares on relative errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.attention.points import UniformPoints
from l4sim.cost.fitting import beats_roofline
from l4sim.specs.gpu import GPU

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
C = TypeVar("C")

_PART = 5


def decode_bytes(points: UniformPoints) -> FloatArray:
    """Bytes of keys, values, queries and outputs of decode batches in bf16, shape ``[points]``."""
    return 4.0 * points.head_dim * points.batch * (points.kv_heads * points.tokens + points.heads)


def prefill_bytes(points: UniformPoints) -> FloatArray:
    """The same of causal prompts."""
    return 4.0 * points.head_dim * points.batch * points.tokens * (points.kv_heads + points.heads)


def possible_decodes(points: UniformPoints, gpu: GPU) -> UniformPoints:
    """Decode batches without those that beat the GPU's roofline."""
    flops = 4.0 * points.head_dim * points.heads * points.batch * points.tokens
    return points.where(~beats_roofline(points.seconds, decode_bytes(points), flops, gpu))


def possible_prefills(points: UniformPoints, gpu: GPU) -> UniformPoints:
    """Causal prompts without those that beat the GPU's roofline."""
    pairs = points.tokens * (points.tokens + 1) / 2
    flops = 4.0 * points.head_dim * points.heads * points.batch * pairs
    return points.where(~beats_roofline(points.seconds, prefill_bytes(points), flops, gpu))


def held_out_fifth(keys: tuple[NDArray[np.int64], ...], seed: int = 0) -> BoolArray:
    """A seeded fifth, one point of each five neighbours in the order of ``keys`` (arrays of shape ``[points]``)."""
    order = np.lexsort(keys[::-1])
    first = np.arange(0, len(order), _PART)
    chosen = first + np.random.default_rng(seed).integers(_PART, size=len(first))
    mask = np.zeros(len(order), dtype=np.bool_)
    mask[order[chosen[chosen < len(order)]]] = True
    return mask


def least_squares(
    start: C,
    bounds: Mapping[str, tuple[float, float]],
    predict: Callable[[C], FloatArray],
    measured: FloatArray,
    tolerance: float = 1e-5,
) -> C:
    """Fit the fields in ``bounds`` of a frozen dataclass to relative errors, outliers damped (soft L1 above 5 %).

    ``predict`` returns an array of the shape of ``measured``; fields start at their value in ``start``, above 0, which
    is also their scale. The fit ends when a step changes squared errors or fields by less than ``tolerance``.
    """
    from scipy import optimize

    scales = np.array([getattr(start, name) for name in bounds])

    def coefficients(x: FloatArray) -> C:
        values: dict[str, Any] = dict(zip(bounds, (x * scales).tolist(), strict=True))
        return replace(start, **values)  # type: ignore[type-var]

    low, high = np.array(list(bounds.values())).T / scales

    def residuals(x: FloatArray) -> FloatArray:
        return predict(coefficients(x)) / measured - 1

    solution = optimize.least_squares(
        residuals,
        np.ones(len(scales)),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=0.05,
        ftol=tolerance,
        xtol=tolerance,
    )
    return coefficients(solution.x)
