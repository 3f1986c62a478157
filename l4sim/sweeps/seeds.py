"""Means and confidence intervals over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from l4sim.sweeps.points import is_setting

if TYPE_CHECKING:
    from pandas import DataFrame

CONFIDENCE = 0.95


def over_seeds(points: DataFrame) -> DataFrame:
    """One row per combination of the settings but the seed: ``seeds``, and every figure's mean and ``_ci95``.

    ``X_ci95`` is the half width of Student's 95 % confidence interval of the mean, missing for a single seed. Failed
    points are left out. Source: Student (1908); seeds are taken as independent and their figures as normal.
    """
    from pandas import DataFrame
    from scipy.special import stdtrit

    settings = [name for name in points.columns if is_setting(name) and name != "seed"]
    done = points[points["status"] == "done"]
    figures = [
        name
        for name in points.columns
        if not is_setting(name) and name not in ("status", "error") and len(done) and _is_number(done[name].iloc[0])
    ]
    rows = []
    for setting, group in done.groupby(settings, sort=False, dropna=False):
        values = group[figures].to_numpy(dtype=np.float64)
        count = len(values)
        mean = values.mean(axis=0)
        row = dict(zip(settings, setting, strict=True)) | {"seeds": count}
        width = (
            stdtrit(count - 1, (1 + CONFIDENCE) / 2) * values.std(axis=0, ddof=1) / np.sqrt(count)
            if count > 1
            else np.full(len(figures), np.nan)
        )
        for name, middle, half in zip(figures, mean, width, strict=True):
            row |= {name: float(middle), f"{name}_ci95": float(half)}
        rows.append(row)
    return DataFrame(rows)


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_))
