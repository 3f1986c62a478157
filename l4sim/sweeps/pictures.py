"""The pictures of a sweep, by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4sim.results.plots.show import shown_axes
from l4sim.sweeps.tables import SweepTables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PICTURES = ("latency", "goodput", "slo_attainment", "capacity")


@dataclass(frozen=True, slots=True)
class SweepPlots:
    """Pictures of a sweep, each as its matplotlib axes. Every method raises InputError if there is nothing to show."""

    tables: SweepTables

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

        tables, slo = self.tables, self.tables.slo
        settings = tuple(setting for setting in tables.settings if setting != "seed")
        if name == "capacity":
            if tables.capacity is None or tables.searched is None or slo is None:
                return None
            return capacity_by_policy(tables.capacity, settings, tables.searched, slo)
        if tables.capacity is not None:
            return None
        if name == "latency":
            return latency_against_load(tables.means, settings)
        if slo is None:
            return None
        draw = goodput_against_load if name == "goodput" else attainment_against_scale
        return draw(tables.means, settings, slo)
