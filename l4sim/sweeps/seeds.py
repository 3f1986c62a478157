"""Means over seeds, and changes between policies paired by seed, with confidence intervals."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from l4sim.results.changes import METRICS, Metric, paired_by_seed
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


def changes_by_seed(points: DataFrame) -> DataFrame:
    """One row per combination of the settings but the seed, and figure: a policy's change against the first policy.

    Columns are the settings, ``against``, ``figure`` (a column of ``points``), ``seeds`` and the fields of
    `l4sim.results.changes.Change`. Each run is held against the one of the same seed; seeds that either policy failed
    with are left out. Without a row where no seeds were given.
    """
    from pandas import DataFrame

    if "seed" not in points.columns or not len(points):
        return DataFrame()
    done, first = points[points["status"] == "done"], points["policy"].iloc[0]
    world = [name for name in points.columns if is_setting(name) and name not in ("seed", "policy")]
    base = done[done["policy"] == first]
    rows = []
    for policy in (name for name in done["policy"].unique() if name != first):
        pairs = done[done["policy"] == policy].merge(base, on=[*world, "seed"], suffixes=("", _OF_FIRST))
        for setting, group in pairs.groupby(world, sort=False, dropna=False) if world else [((), pairs)]:
            for metric in METRICS:
                figure = _column(metric)
                if figure not in points.columns:
                    continue
                change = paired_by_seed(
                    group[figure].to_numpy(dtype=np.float64),
                    group[figure + _OF_FIRST].to_numpy(dtype=np.float64),
                    higher_is_better=metric.higher_is_better,
                )
                row = {"policy": policy, **dict(zip(world, setting, strict=True))}
                rows.append(row | {"against": first, "figure": figure, "seeds": len(group), **asdict(change)})
    return DataFrame(rows)


_OF_FIRST = " of the first policy"


def _column(metric: Metric) -> str:
    """What a sweep's tables call a figure."""
    return metric.name if metric.statistic == "rate" else f"{metric.name.removesuffix('_s')}_{metric.statistic}_s"


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_))
