"""Load over time: batches and KV cache of every instance, queues, and how mixed the batches are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from l4sim.results.plots.bins import binned_means, time_edges_s
from l4sim.results.plots.style import colours, legend, panels
from l4sim.results.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEATMAP_BINS = 300
LINE_BINS = 120

FloatArray = NDArray[np.float64]


def instance_heatmaps(runs: Sequence[Run]) -> Figure | None:
    """Per policy, every instance's batch size and KV cache use over time; None if no instance ran.

    One colour scale per column, so that policies compare.
    """
    from matplotlib.ticker import MaxNLocator

    runs = _ran(runs)
    if not runs:
        return None
    edges_s = time_edges_s(runs, HEATMAP_BINS)
    batches = [
        binned_means(run, (run.iterations["decode_requests"] + run.iterations["prefill_requests"]).to_numpy(), edges_s)
        for run in runs
    ]
    kv_percents = [
        binned_means(
            run, (100 * run.iterations["kv_blocks_used"] / run.iterations["kv_blocks_total"]).to_numpy(), edges_s
        )
        for run in runs
    ]
    instances = max(run.instance_count for run in runs)
    row_in = min(max(0.05 * instances, 1.1), 3.0)
    figure, axes = panels(len(runs), 2, row_in, titled=True, gap_in=0.95, right_in=0.65, sharex=True, sharey=True)
    columns = ((batches, "batch size (requests)"), (kv_percents, "KV cache used (%)"))
    for column, (tables, name) in enumerate(columns):
        top = max(float(table.max()) for table in tables) or 1.0
        for row, (run, table) in enumerate(zip(runs, tables, strict=True)):
            ax = axes[row][column]
            extent = (0.0, float(edges_s[-1]), len(table) - 0.5, -0.5)
            image = ax.imshow(
                _until_end(run, table, edges_s),
                extent=extent,
                aspect="auto",
                interpolation="nearest",
                cmap="viridis",
                vmin=0,
                vmax=top,
            )
            ax.set_title(f"{run.policy}: {name}")
            ax.grid(visible=False)
            ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes[-1][column].set_xlabel("time (s)")
        upper, lower = axes[0][column].get_position(), axes[-1][column].get_position()
        figure.colorbar(image, cax=figure.add_axes((upper.x1 + 0.01, lower.y0, 0.012, upper.y1 - lower.y0)))
    for left, _ in axes:
        left.set_ylabel("instance")
    return figure


def queue_length(runs: Sequence[Run]) -> Figure | None:
    """Requests waiting, over all instances, against time; None if no instance ran."""
    runs = _ran(runs)
    if not runs:
        return None
    edges_s = time_edges_s(runs, LINE_BINS)
    waiting = [
        _until_end(run, binned_means(run, run.iterations["waiting_requests"].to_numpy(), edges_s), edges_s).sum(axis=0)
        for run in runs
    ]
    names = [f"{run.policy} (peak {np.nanmax(line):,.0f})" for run, line in zip(runs, waiting, strict=True)]
    return _lines(runs, names, edges_s, waiting, "waiting requests, all instances")


def heterogeneity(runs: Sequence[Run]) -> Figure | None:
    """How unlike the context lengths in a decode batch are (standard deviation / mean); None if nothing decoded.

    A line is the mean over the instances that decode at the time, weighted by their time; the legend has its mean over
    the run. Batches of one count as uniform.
    """
    runs = [run for run in runs if (run.iterations["decode_requests"] > 0).any()]
    if not runs:
        return None
    edges_s = time_edges_s(runs, LINE_BINS)
    lines, names = [], []
    for run in runs:
        decoding = (run.iterations["decode_requests"] > 0).to_numpy(dtype=np.float64)
        mean_tokens = run.iterations["context_tokens"] / run.iterations["decode_requests"].clip(lower=1)
        variation = run.iterations["context_std_tokens"].to_numpy() / np.maximum(mean_tokens.to_numpy(), 1.0) * decoding
        busy = binned_means(run, decoding, edges_s).sum(axis=0)
        total = binned_means(run, variation, edges_s).sum(axis=0)
        # Bins without decoding have rounding residue at most.
        lines.append(np.divide(total, busy, out=np.full_like(total, np.nan), where=busy > 1e-9))
        names.append(f"{run.policy} (mean {total.sum() / busy.sum():.2f})")
    return _lines(runs, names, edges_s, lines, "std / mean of context lengths")


def _lines(
    runs: Sequence[Run], names: Sequence[str], edges_s: FloatArray, lines: Sequence[FloatArray], ylabel: str
) -> Figure:
    colour = colours([run.policy for run in runs])
    figure, [[ax]] = panels(1, 1, 2.2, entries=len(runs))
    centre_s = (edges_s[:-1] + edges_s[1:]) / 2
    for run, name, line in zip(runs, names, lines, strict=True):
        ax.plot(centre_s, line, color=colour[run.policy], label=name, linewidth=1.2)
    ax.set(xlabel="time (s)", ylabel=ylabel, xlim=(0, edges_s[-1]))
    ax.set_ylim(bottom=0)
    legend(figure, ax.lines)
    return figure


def _until_end(run: Run, table: FloatArray, edges_s: FloatArray) -> FloatArray:
    """The table with NaN, which is not drawn, in the bins behind the run's end."""
    return np.where(edges_s[:-1] < run.iterations["end_s"].max(), table, np.nan)


def _ran(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if len(run.iterations)]
