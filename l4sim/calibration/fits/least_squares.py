"""Least squares on relative errors, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
C = TypeVar("C")


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
