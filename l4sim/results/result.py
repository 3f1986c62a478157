"""What `compare` and `replay` give back: frames, pictures, a table, a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4sim.results.changes import Comparison, compare_runs
from l4sim.results.changes_text import cautions, verdict, who_loses
from l4sim.results.comparison_text import heading, unfinished
from l4sim.results.metrics import summarise
from l4sim.results.numbers import precise
from l4sim.results.plots.show import shown_axes
from l4sim.results.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from l4sim.experiment import Setup
    from l4sim.workload.trace import Trace

_STATISTICS = {
    "ttft_s": ("mean", "p50", "p99"),
    "tpot_s": ("mean", "p50", "p99"),
    "e2e_s": ("mean", "p50", "p99"),
    "normalized_latency_s": ("mean", "p99"),
}


@dataclass(frozen=True, eq=False)
class Result:
    """What one or more policies did with a trace. Frames have units in their column names."""

    trace: Trace
    setup: Setup
    runs: tuple[Run, ...]

    @cached_property
    def summaries(self) -> list[dict[str, Any]]:
        """One dict per policy, as ``summary.json`` has them (see `l4sim.results.metrics.summarise`)."""
        return [summarise(run) for run in self.runs]

    @cached_property
    def comparison(self) -> Comparison | None:
        """The policies held against one of them, with intervals; None if fewer than two finished requests."""
        return compare_runs(self.runs)

    @cached_property
    def changes(self) -> DataFrame:
        """One row per policy, figure and length class: its change against the policy that all are held against.

        Columns are those of `l4sim.results.changes.PolicyChange` and `Change`. Without a row if there is nothing to
        compare.
        """
        from pandas import DataFrame

        return DataFrame([each.as_row() for each in self.comparison.changes] if self.comparison else [])

    @cached_property
    def table(self) -> DataFrame:
        """One row per policy (the index): requests by status, throughput, and statistics of each latency in seconds."""
        from pandas import DataFrame

        rows = [
            {f"requests_{status}": summary["requests"][status] for status in ("finished", "rejected", "failed")}
            | {name: summary[name] for name in ("throughput_requests_per_s", "throughput_tokens_per_s")}
            | {
                f"{latency.removesuffix('_s')}_{statistic}_s": summary[latency][statistic]
                for latency, statistics in _STATISTICS.items()
                for statistic in statistics
            }
            | {"migrations_done": summary["migrations"]["done"], "preemptions": summary["preemptions"]}
            for summary in self.summaries
        ]
        return DataFrame(rows, index=[run.policy for run in self.runs]).rename_axis("policy")

    @cached_property
    def requests(self) -> DataFrame:
        """One row per policy and request (see `l4sim.results.run.REQUESTS`)."""
        return _concatenated([run.requests for run in self.runs])

    @cached_property
    def iterations(self) -> DataFrame:
        """One row per policy, instance and segment of equal iterations (see `l4sim.results.run.ITERATIONS`)."""
        return _concatenated([run.iterations for run in self.runs])

    @cached_property
    def migrations(self) -> DataFrame:
        """One row per policy and migration asked for (see `l4sim.results.run.MIGRATIONS`)."""
        return _concatenated([run.migrations for run in self.runs])

    @property
    def verdict(self) -> str:
        """The outcome of the comparison in one line."""
        return verdict(self.comparison)

    @property
    def plot(self) -> Plots:
        """Pictures, each a method: ``result.plot.cdf()``."""
        return Plots(self.runs)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write one self-contained file with the whole comparison.

        Raises:
            InputError: it cannot be written.
        """
        from l4sim.results.html_report import write_report

        return write_report(Path(path), self.trace, self.setup, self.runs, self.summaries, self.comparison)

    def __repr__(self) -> str:
        return f"{heading(self.trace, self.setup)}\n{self.table.T.to_string(float_format=precise)}"

    def _repr_html_(self) -> str:
        from html import escape

        lines = [escape(heading(self.trace, self.setup)), self.table.T.to_html(float_format=precise, border=0)]
        if len(self.runs) > 1:
            lines.append(escape(self.verdict))
        if self.comparison is not None:
            lines += [escape(line) for line in who_loses(self.comparison)]
        lines += [escape(line) for line in (*cautions(self.summaries), *unfinished(self.summaries))]
        return "".join(line if line.startswith("<table") else f"<p>{line}</p>" for line in lines)


@dataclass(frozen=True, slots=True)
class Plots:
    """Pictures of runs, each as its matplotlib axes. Every method raises InputError if there is nothing to show."""

    runs: Sequence[Run]

    def cdf(self) -> list[Axes]:
        """The share of finished requests within an E2E latency, and within a TTFT: two axes."""
        from l4sim.results.plots.latency import latency_cdf

        return shown_axes(lambda: latency_cdf(self.runs), "no request finished")

    def by_length(self) -> list[Axes]:
        """Median and P95 of E2E and normalized latency by context length: two axes."""
        from l4sim.results.plots.latency import latency_by_length

        return shown_axes(lambda: latency_by_length(self.runs), "no request finished")

    def instances(self) -> list[Axes]:
        """Every instance's batch size and KV cache use over time: two axes per policy, and two colour bars."""
        from l4sim.results.plots.load import instance_heatmaps

        return shown_axes(lambda: instance_heatmaps(self.runs), "no instance ran")

    def queue(self) -> list[Axes]:
        """Waiting requests over time."""
        from l4sim.results.plots.load import queue_length

        return shown_axes(lambda: queue_length(self.runs), "no instance ran")

    def heterogeneity(self) -> list[Axes]:
        """How mixed the lengths within each instance's batches are over time."""
        from l4sim.results.plots.load import heterogeneity

        return shown_axes(lambda: heterogeneity(self.runs), "nothing was decoded")

    def plan(self) -> list[Axes]:
        """Stages and migrations over time: one of the axes per policy that has any."""
        from l4sim.results.plots.plan import plan_and_migrations

        return shown_axes(lambda: plan_and_migrations(self.runs), "no policy has a plan or migrations")


def _concatenated(frames: Sequence[DataFrame]) -> DataFrame:
    from pandas import concat

    return concat(frames, ignore_index=True)
