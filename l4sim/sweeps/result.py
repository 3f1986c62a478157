"""What a sweep gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from l4sim.results.plots.show import shown_axes
from l4sim.sweeps.points import Value, is_setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

    from l4sim.results.slo import SLO

_SEARCHED = {"rate": "rate_per_s", "instances": "instances"}


@dataclass(frozen=True, eq=False)
class SweepResult:
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

    @property
    def plot(self) -> SweepPlots:
        """Pictures: ``result.plot.latency()``, ``goodput()``, ``attainment()``; after a search ``capacity()``."""
        return SweepPlots(self)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write one self-contained file that tells the whole sweep.

        Raises:
            InputError: it cannot be written.
        """
        from l4sim.sweeps.report import write_report

        return write_report(Path(path), self)

    def __repr__(self) -> str:
        return self.brief().to_string(index=False, float_format="{:,.4g}".format, na_rep="–")

    def _repr_html_(self) -> str:
        """The capacity, or the means of the settings that vary and the main figures, as a table."""
        return self.brief().to_html(index=False, float_format="{:,.4g}".format, na_rep="–", border=0)

    def brief(self) -> DataFrame:
        """What varied, and the main figures: of the capacity after a search, else of the means."""
        table = self.told
        return table[[*self.varied(), *(name for name in _BRIEF if name in table.columns)]]

    def varied(self) -> list[str]:
        """The settings that differ between the rows of the capacity, or of the means; always the policy and what was
        searched for.
        """
        table, always = self.told, ("policy", self.searched)
        settings = [name for name in table.columns if is_setting(name)]
        return [name for name in settings if name in always or table[name].nunique(dropna=False) > 1]

    @property
    def searched(self) -> str | None:
        """The column of the capacity that a search has found."""
        return None if self.search is None else _SEARCHED[self.search]

    @property
    def found(self) -> Series[bool]:
        """Which rows of `told` have figures; one of the capacity that has none, or no bound, says why as ``error``."""
        from pandas import Series

        table = self.told
        return table["error"].fillna("") == "" if "error" in table else Series(True, index=table.index)

    @property
    def told(self) -> DataFrame:
        """The frame that answers the question: the capacity after a search, else the means."""
        return self.means if self.capacity is None else self.capacity


_BRIEF = (
    "seeds",
    "throughput_tokens_per_s",
    "ttft_mean_s",
    "ttft_p99_s",
    "tpot_mean_s",
    "tpot_p99_s",
    "e2e_mean_s",
    "e2e_p99_s",
    "normalized_latency_mean_s",
    "slo_attainment",
    "goodput_requests_per_s",
    "usd_per_million_output_tokens",
    "search_points",
    "error",
)


@dataclass(frozen=True, slots=True)
class SweepPlots:
    """Pictures of a sweep, each as its matplotlib axes. Every method raises InputError if there is nothing to show."""

    result: SweepResult

    def latency(self) -> list[Axes]:
        """Mean normalized latency and P99 TTFT against the rate, or whatever number was varied."""
        return self._shown("latency", "no number was varied, or a search chose them")

    def goodput(self) -> list[Axes]:
        """Requests per second within the SLO against the rate, or whatever number was varied."""
        return self._shown("goodput", "no number was varied, no SLO on requests given, or a search chose the rates")

    def attainment(self) -> list[Axes]:
        """Share of requests within a multiple of the SLO, against the multiple."""
        return self._shown("slo_attainment", "no SLO on requests was given, or a search chose the rates")

    def capacity(self) -> list[Axes]:
        """The highest rate, or the fewest instances, of every policy within the SLO."""
        return self._shown("capacity", "no capacity was searched for")

    def figures(self) -> Iterator[tuple[str, Figure | None]]:
        """Every picture by its name, None where the sweep has nothing for it.

        Raises:
            InputError: more combinations than panels.
        """
        import matplotlib as mpl

        from l4sim.results.plots.style import RC

        for name in _PICTURES:
            with mpl.rc_context(RC):
                figure = self._figure(name)
            yield name, figure

    def _shown(self, name: str, nothing: str) -> list[Axes]:
        return shown_axes(lambda: self._figure(name), nothing)

    def _figure(self, name: str) -> Figure | None:
        from l4sim.results.plots.capacity import capacity_by_policy
        from l4sim.results.plots.sweep import attainment_against_scale, goodput_against_load, latency_against_load

        result, slo = self.result, self.result.slo
        settings = tuple(setting for setting in result.settings if setting != "seed")
        if name == "capacity":
            if result.capacity is None or result.searched is None or slo is None:
                return None
            return capacity_by_policy(result.capacity, settings, result.searched, slo)
        if result.capacity is not None:
            return None
        if name == "latency":
            return latency_against_load(result.means, settings)
        if slo is None:
            return None
        draw = goodput_against_load if name == "goodput" else attainment_against_scale
        return draw(result.means, settings, slo)


_PICTURES = ("latency", "goodput", "slo_attainment", "capacity")
