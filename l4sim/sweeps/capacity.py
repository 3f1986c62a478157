"""Capacity: the highest rate, or the fewest instances, with which a policy meets an SLO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING

from l4sim.errors import InputError
from l4sim.results.slo import parse_slo
from l4sim.sweeps.grid import expand
from l4sim.sweeps.points import Point, Row, Value, is_setting

if TYPE_CHECKING:
    from pandas import DataFrame

Evaluate = Callable[[Sequence[Point]], list[Row]]
"""Rows of points, as `l4sim.sweeps.runner.run_points` gives them."""

SEARCHES = ("rate", "instances")
TOLERANCE = 0.02
"""Width of the final bracket of a rate over its lower end."""
_HIGHEST_RATE_PER_S = 2.0**20
_MOST_INSTANCES = 1024


def search_capacity(
    axes: Mapping[str, Sequence[Value]],
    search: str,
    evaluate: Evaluate,
    *,
    slo: str,
    price_usd_per_gpu_hour: float | None = None,
    tolerance: float = TOLERANCE,
) -> DataFrame:
    """The capacity for every combination of the axes; a combination's seeds are searched together.

    ``search`` is ``rate``: the highest rate in requests/s that meets the SLO, by doubling or halving from 1/s, then by
    bisection until the bracket is narrower than ``tolerance`` times its lower end; or ``instances``: the fewest, by
    doubling from one and bisection, exactly. A candidate is good if the SLO is met with every seed of the axes. All
    combinations are searched at the same time, so that an executor always has a point of each.

    A row holds the settings, ``rate_per_s`` or ``instances`` as found (missing if none is good), the figures of the
    first seed there, and ``search_points``, how many simulations it took; with a price also
    ``usd_per_million_output_tokens``.

    The search assumes that what is good stays good at lower rates and with more instances; else it finds one of several
    edges.

    Raises:
        InputError: an unknown search, an SLO that cannot be read, or axes that name what is searched.
    """
    from pandas import DataFrame

    if search not in SEARCHES:
        raise InputError(f"no search '{search}': accepted are {', '.join(SEARCHES)}")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}, accepted is above 0 and below 1")
    parse_slo(slo)
    name = "rate_per_s" if search == "rate" else "instances"
    for taken in (name, "rate_scale", "concurrency") if search == "rate" else (name,):
        if taken in axes:
            raise InputError(f"a search for {search} chooses {name}: leave {taken} out of the grid")
    by_combination: dict[tuple[tuple[str, Value], ...], list[dict[str, Value]]] = {}
    for setting in expand(axes):
        combination = tuple((key, value) for key, value in setting.items() if key != "seed")
        by_combination.setdefault(combination, []).append(setting)
    searches = [_Search(tolerance, whole=search == "instances") for _ in by_combination]
    while any(one.candidate is not None for one in searches):
        asked = [
            (one, [Point({**setting, name: one.candidate}, slo, price_usd_per_gpu_hour) for setting in seeds])
            for one, seeds in zip(searches, by_combination.values(), strict=True)
            if one.candidate is not None
        ]
        rows = iter(evaluate([point for _, points in asked for point in points]))
        for one, points in asked:
            one.take([next(rows) for _ in points])
    found = [
        {**dict(combination), name: one.good, **one.row(), "search_points": one.points}
        for combination, one in zip(by_combination, searches, strict=True)
    ]
    return DataFrame(found)


class _Search:
    """One combination's search: a bracket whose ``good`` end meets the SLO and whose ``bad`` end does not."""

    def __init__(self, tolerance: float, *, whole: bool) -> None:
        self._tolerance, self._whole = tolerance, whole
        self.good: float | None = None
        self._bad: float | None = None
        self._best: Row = {}
        self._error = ""
        self.points = 0
        self.candidate: float | None = 1 if whole else 1.0

    def take(self, rows: Sequence[Row]) -> None:
        """Take the candidate's rows, one per seed, and choose the next candidate: None once the search is over."""
        self.points += len(rows)
        self._error = next((str(row["error"]) for row in rows if row["status"] == "failed"), "")
        if not self._error and all(row["meets_slo"] for row in rows):
            self.good, self._best = self.candidate, rows[0]
        else:
            self._bad = self.candidate
        # A policy that some number of instances is too small for may be had with more; a rate mends nothing.
        self.candidate = self._next_count() if self._whole else None if self._error else self._next_rate()

    def row(self) -> Row:
        """The figures at the capacity; if there is none, the reason as ``error``."""
        figures = {name: value for name, value in self._best.items() if not is_setting(name)}
        if self.good is None:
            return {
                "status": "failed",
                "error": self._error or "the SLO is not met anywhere: is it below the latency of one?",
            }
        if self._bad is None and not self._whole:
            return {**figures, "error": "the SLO is met at any rate: the trace is too short to saturate the cluster"}
        return figures

    def _next_rate(self) -> float | None:
        if self._bad is None:
            return None if self.good is None or self.good >= _HIGHEST_RATE_PER_S else 2 * self.good
        if self.good is None:
            return None if self._bad <= 1 / _HIGHEST_RATE_PER_S else self._bad / 2
        return None if self._bad <= (1 + self._tolerance) * self.good else sqrt(self.good * self._bad)

    def _next_count(self) -> int | None:
        bad = int(self._bad or 0)
        if self.good is None:
            return None if bad >= _MOST_INSTANCES else min(2 * bad, _MOST_INSTANCES)
        return (bad + int(self.good)) // 2 if self.good - bad > 1 else None
