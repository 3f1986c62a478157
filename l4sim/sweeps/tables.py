"""The tables of a sweep, and what follows from them: which settings varied, which points failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4sim.sweeps.points import Value, is_setting
from l4sim.sweeps.seeds import changes_by_seed

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from l4sim.results.slo import SLO

_SEARCHED = {"rate": "rate_per_s", "instances": "instances"}


@dataclass(frozen=True, eq=False)
class SweepTables:
    """The points of a sweep as frames; units are in the column names."""

    points: DataFrame
    """One row per simulation: its settings, ``status``, ``error`` and figures, as `l4sim.sweeps.points.evaluate` has
    them."""
    means: DataFrame
    """One row per setting but the seed: ``seeds``, every figure's mean and ``_ci95``, the half width of its 95 %
    confidence interval."""
    capacity: DataFrame | None
    """After a search, one row per combination: what was found and the figures there (see
    `l4sim.sweeps.capacity.search_capacity`)."""
    axes: Mapping[str, Sequence[Value]]
    """The grid: every key that was given, with its values."""
    slo: SLO | None
    search: str | None
    """What was searched for: ``rate`` or ``instances``."""
    price_usd_per_gpu_hour: float | None

    @property
    def settings(self) -> tuple[str, ...]:
        """The columns that are settings."""
        return tuple(name for name in self.points.columns if is_setting(name))

    @property
    def failures(self) -> DataFrame:
        """The points that failed, with their settings and errors."""
        points = self.points
        return points.loc[points["status"] == "failed", [*self.settings, "error"]]

    def varied(self) -> list[str]:
        """The settings that differ between the rows of `answers`, and always the policy and what was searched for."""
        table, always = self.answers, ("policy", self.searched)
        settings = [name for name in table.columns if is_setting(name)]
        return [name for name in settings if name in always or table[name].nunique(dropna=False) > 1]

    @property
    def searched(self) -> str | None:
        """The column that a search has chosen values for, ``rate_per_s`` or ``instances``; None without a search."""
        return None if self.search is None else _SEARCHED[self.search]

    @property
    def found(self) -> Series[bool]:
        """Which rows of `answers` have figures; the others (a capacity that was not found, or has no bound) say why in
        their column ``error``."""
        from pandas import Series

        table = self.answers
        return table["error"].fillna("") == "" if "error" in table else Series(True, index=table.index)

    @property
    def changes(self) -> DataFrame:
        """Every policy's changes against the first one, paired by seed (`l4sim.sweeps.seeds.changes_by_seed`)."""
        return changes_by_seed(self.points)

    @property
    def answers(self) -> DataFrame:
        """The table that the sweep was run for: the capacity after a search, else the means."""
        return self.means if self.capacity is None else self.capacity
