"""Load over time: batches and KV cache of every instance, queues, and how mixed the batches are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from l4sim.results.numbers import precise
from l4sim.results.plots.bins import binned_means, time_edges_s
from l4sim.results.plots.style import colours, legend, panels
from l4sim.results.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

HEATMAP_BINS = 300
LINE_BINS = 120

FloatArray = NDArray[np.float64]


def instance_heatmaps(runs: Sequence[Run]) -> Figure | None:
    """Per policy, every instance's batch size and KV cache use over time; None if no instance ran.

    One colour scale per column, so that policies compare.
    """
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
    figure, axes = panels(
        len(runs), 2, _heatmap_row_in(runs), titled=True, gap_in=0.95, right_in=0.65, sharex=True, sharey=True
    )
    columns = ((batches, "batch size (requests)"), (kv_percents, "KV cache used (%)"))
    for column, (tables, name) in enumerate(columns):
        top = max(float(table.max()) for table in tables) or 1.0
        for row, (run, table) in enumerate(zip(runs, tables, strict=True)):
            image = _draw_heatmap(axes[row][column], _until_end(run, table, edges_s), edges_s, top)
            axes[row][column].set_title(f"{run.policy}: {name}")
        axes[-1][column].set_xlabel("time (s)")
        _colour_bar(figure, image, axes[0][column], axes[-1][column])
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
    names = [f"{run.policy} (peak {precise(float(np.nanmax(line)))})" for run, line in zip(runs, waiting, strict=True)]
    figure, [[ax]] = panels(1, 1, 2.2, entries=len(runs))
    _draw_lines(ax, runs, names, edges_s, waiting)
    ax.set(xlabel="time (s)", ylabel="waiting requests, all instances")
    legend(figure, ax.lines)
    return figure


def heterogeneity(runs: Sequence[Run]) -> Figure | None:
    """How unlike the context lengths in a decode batch are (standard deviation / mean); None if nothing decoded.

    A line per policy is the mean over the instances that decode at the time, weighted by their time; the legend has its
    mean over the run. Below, every instance's own. Batches of one count as uniform.
    """
    runs = [run for run in runs if (run.iterations["decode_requests"] > 0).any()]
    if not runs:
        return None
    edges_s = time_edges_s(runs, LINE_BINS)
    parts = [_variation(run, edges_s) for run in runs]
    means = [float(total.sum() / busy.sum()) for total, busy in parts]
    names = [f"{run.policy} (mean {mean:.2f})" for run, mean in zip(runs, means, strict=True)]
    row_in = _heatmap_row_in(runs)
    figure, axes = panels(
        1 + len(runs), 1, [2.2, *[row_in] * len(runs)], entries=len(runs), titled=True, right_in=0.9, sharex=True
    )
    [line_ax], *heatmap_axes = axes
    _draw_lines(line_ax, runs, names, edges_s, [_ratio(total.sum(axis=0), busy.sum(axis=0)) for total, busy in parts])
    line_ax.set(title="all instances", ylabel="std / mean of lengths")
    tables = [_ratio(total, busy) for total, busy in parts]
    top = max(float(np.nanmax(table)) for table in tables) or 1.0
    for [ax], run, table in zip(heatmap_axes, runs, tables, strict=True):
        image = _draw_heatmap(ax, table, edges_s, top)
        ax.set(title=f"{run.policy}, each instance (white: not decoding)", ylabel="instance")
    _colour_bar(figure, image, heatmap_axes[0][0], heatmap_axes[-1][0], "std / mean of lengths")
    axes[-1][0].set_xlabel("time (s)")
    legend(figure, line_ax.lines)
    return figure


def _variation(run: Run, edges_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per instance and bin, time-weighted means of std / mean of lengths (0 where nothing decodes), and of whether it
    decodes; their ratio is the mean of std / mean while it decodes.
    """
    decoding = (run.iterations["decode_requests"] > 0).to_numpy(dtype=np.float64)
    mean_tokens = run.iterations["context_tokens"] / run.iterations["decode_requests"].clip(lower=1)
    variation = run.iterations["context_std_tokens"].to_numpy() / np.maximum(mean_tokens.to_numpy(), 1.0) * decoding
    return binned_means(run, variation, edges_s), binned_means(run, decoding, edges_s)


def _ratio(total: FloatArray, busy: FloatArray) -> FloatArray:
    # Bins without decoding have rounding residue at most.
    return np.divide(total, busy, out=np.full_like(total, np.nan), where=busy > 1e-9)


def _draw_lines(
    ax: Axes, runs: Sequence[Run], names: Sequence[str], edges_s: FloatArray, lines: Sequence[FloatArray]
) -> None:
    colour = colours([run.policy for run in runs])
    centre_s = (edges_s[:-1] + edges_s[1:]) / 2
    for run, name, line in zip(runs, names, lines, strict=True):
        ax.plot(centre_s, line, color=colour[run.policy], label=name, linewidth=1.2)
    ax.set_xlim(0, edges_s[-1])
    ax.set_ylim(bottom=0)


def _heatmap_row_in(runs: Sequence[Run]) -> float:
    return min(max(0.05 * max(run.instance_count for run in runs), 1.1), 3.0)


def _draw_heatmap(ax: Axes, table: FloatArray, edges_s: FloatArray, top: float) -> AxesImage:
    """Draw a value per instance and time, from 0 to ``top``; what is NaN stays white."""
    from matplotlib.ticker import MaxNLocator

    extent = (0.0, float(edges_s[-1]), len(table) - 0.5, -0.5)
    image = ax.imshow(table, extent=extent, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0, vmax=top)
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return image


def _colour_bar(figure: Figure, image: AxesImage, highest: Axes, lowest: Axes, label: str = "") -> None:
    """Draw one colour scale to the right of a column of panels."""
    upper, lower = highest.get_position(), lowest.get_position()
    place = figure.add_axes((upper.x1 + 0.01, lower.y0, 0.012, upper.y1 - lower.y0))
    figure.colorbar(image, cax=place, label=label)


def _until_end(run: Run, table: FloatArray, edges_s: FloatArray) -> FloatArray:
    """The table with NaN, which is not drawn, in the bins after the run's end."""
    return np.where(edges_s[:-1] < run.iterations["end_s"].max(), table, np.nan)


def _ran(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if len(run.iterations)]
