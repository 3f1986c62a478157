"""What a sweep gives back: its tables, with their pictures, their report and a short print of them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from l4sim.sweeps.html_report import write_report
from l4sim.sweeps.pictures import SweepPlots
from l4sim.sweeps.tables import SweepTables

if TYPE_CHECKING:
    from pandas import DataFrame

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


class SweepResult(SweepTables):
    """The tables of a sweep, which a notebook shows, draws and reports."""

    @property
    def plot(self) -> SweepPlots:
        """Pictures: ``result.plot.latency()``, ``goodput()``, ``attainment()``; after a search ``capacity()``."""
        return SweepPlots(self)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write one self-contained file with all of the sweep.

        Raises:
            InputError: it cannot be written.
        """
        return write_report(Path(path), self)

    def __repr__(self) -> str:
        return self.brief().to_string(index=False, float_format="{:,.4g}".format, na_rep="–")

    def _repr_html_(self) -> str:
        """The capacity, or the means of the settings that vary and the main figures, as a table."""
        return self.brief().to_html(index=False, float_format="{:,.4g}".format, na_rep="–", border=0)

    def brief(self) -> DataFrame:
        """What varied, and the main figures: of the capacity after a search, else of the means."""
        table = self.answers
        return table[[*self.varied(), *(name for name in _BRIEF if name in table.columns)]]
