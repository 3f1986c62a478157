"""What a sweep gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4sim.results.result import shown_axes
from l4sim.sweeps.points import is_setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


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
    settings: tuple[str, ...]
    """The columns that are settings."""

    @property
    def failures(self) -> DataFrame:
        """The points that failed, with their settings and errors."""
        points = self.points
        return points.loc[points["status"] == "failed", [*self.settings, "error"]]

    @property
    def plot(self) -> SweepPlots:
        """Pictures: ``result.plot.latency()``, ``goodput()``, ``attainment()``."""
        return SweepPlots(self.means, tuple(name for name in self.settings if name != "seed"))

    def _repr_html_(self) -> str:
        """The capacity, or the means of the settings that vary and the main figures, as a table."""
        return self.brief().to_html(index=False, float_format="{:,.4g}".format, na_rep="–", border=0)

    def brief(self) -> DataFrame:
        """What varied, and the main figures: of the capacity after a search, else of the means."""
        table = self.means if self.capacity is None else self.capacity
        return table[[*self.varied(), *(name for name in _BRIEF if name in table.columns)]]

    def varied(self) -> list[str]:
        """The settings that differ between the rows of the capacity, or of the means; the policy always."""
        table = self.means if self.capacity is None else self.capacity
        settings = [name for name in table.columns if is_setting(name)]
        return [name for name in settings if name == "policy" or table[name].nunique(dropna=False) > 1]


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

    means: DataFrame
    settings: tuple[str, ...]

    def latency(self) -> list[Axes]:
        """Mean normalized latency and P99 TTFT against the rate, or whatever number was varied."""
        from l4sim.results.plots.sweep import latency_against_load

        return shown_axes(lambda: latency_against_load(self.means, self.settings), "no number was varied")

    def goodput(self) -> list[Axes]:
        """Requests per second within the SLO against the rate, or whatever number was varied."""
        from l4sim.results.plots.sweep import goodput_against_load

        return shown_axes(
            lambda: goodput_against_load(self.means, self.settings), "no number was varied, or no SLO on requests given"
        )

    def attainment(self) -> list[Axes]:
        """Share of requests within a multiple of the SLO, against the multiple."""
        from l4sim.results.plots.sweep import attainment_against_scale

        return shown_axes(lambda: attainment_against_scale(self.means, self.settings), "no SLO on requests was given")
