"""Latencies: their distribution, and how they depend on the context length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from l4sim.results.plots.style import colours, labels, legend, log_scale, panels
from l4sim.results.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More points than pixels across a panel show nothing more.
CDF_POINTS = 600
LENGTH_BINS = 16
# A bin's 95th percentile of fewer requests than this is one request's luck.
MIN_PER_BIN = 5

FloatArray = NDArray[np.float64]


def latency_cdf(runs: Sequence[Run]) -> Figure | None:
    """The share of finished requests within an E2E latency, and within a TTFT; None if nothing finished."""
    runs = [run for run in runs if _finished(run).any()]
    if not runs:
        return None
    colour, label = colours([run.policy for run in runs]), labels(runs)
    figure, [axes] = panels(1, 2, 2.6, entries=len(runs), sharey=True, gap_in=0.3)
    for ax, metric, name in zip(axes, ("e2e_s", "ttft_s"), ("E2E latency (s)", "TTFT (s)"), strict=True):
        for run in runs:
            values = np.sort(run.requests[metric].to_numpy()[_finished(run)])
            shown = np.unique(np.linspace(0, len(values) - 1, CDF_POINTS).round().astype(np.int64))
            ax.step(values[shown], (shown + 1) / len(values), where="post", color=colour[run.policy])
        log_scale(ax, "x")
        ax.set(xlabel=name, ylim=(0, 1.01))
    axes[0].set_ylabel("share of finished requests")
    for line, run in zip(axes[0].lines, runs, strict=True):
        line.set_label(label[run.policy])
    legend(figure, axes[0].lines)
    return figure


def latency_by_length(runs: Sequence[Run]) -> Figure | None:
    """Median and 95th percentile of E2E and normalized latency by context length; None if too little finished."""
    runs = [run for run in runs if _finished(run).any()]
    if not runs:
        return None
    colour, label = colours([run.policy for run in runs]), labels(runs)
    lengths = [_context_tokens(run) for run in runs]
    longest, shortest = max(length.max() for length in lengths), min(length.min() for length in lengths)
    edges = np.geomspace(shortest, longest + 1, LENGTH_BINS + 1)
    if not any((np.histogram(length, edges)[0] >= MIN_PER_BIN).any() for length in lengths):
        return None
    figure, [axes] = panels(1, 2, 2.6, entries=len(runs), titled=True, gap_in=0.85)
    panel_metrics = (("e2e_s", "E2E latency (s)", 1.0), ("normalized_latency_s", "E2E / output tokens (ms)", 1e3))
    for ax, (metric, name, scale) in zip(axes, panel_metrics, strict=True):
        for run, length in zip(runs, lengths, strict=True):
            values = scale * run.requests[metric].to_numpy()[_finished(run)]
            centre, median, p95 = _binned_percentiles(length, values, edges)
            ax.plot(centre, median, color=colour[run.policy], marker="o", markersize=3, label=label[run.policy])
            ax.plot(centre, p95, color=colour[run.policy], linestyle="--", linewidth=1)
        log_scale(ax, "x")
        log_scale(ax, "y")
        ax.set(xlabel="prompt + output (tokens)", ylabel=name, title="line: median; dashed: P95")
    legend(figure, axes[0].lines[::2])
    return figure


def _finished(run: Run) -> NDArray[np.bool_]:
    return (run.requests["status"] == "finished").to_numpy(dtype=bool)


def _context_tokens(run: Run) -> FloatArray:
    tokens: FloatArray = (run.requests["prompt_tokens"] + run.requests["output_tokens"]).to_numpy(dtype=np.float64)
    return tokens[_finished(run)]


def _binned_percentiles(
    length: FloatArray, values: FloatArray, edges: FloatArray
) -> tuple[list[float], list[float], list[float]]:
    """Mean length, median and 95th percentile of every bin that has requests enough."""
    order = np.argsort(length, kind="stable")
    length, values = length[order], values[order]
    parts = np.searchsorted(length, edges)
    bins = [slice(lo, hi) for lo, hi in pairwise(parts) if hi - lo >= MIN_PER_BIN]
    percentiles = [np.percentile(values[part], (50, 95)) for part in bins]
    return [float(length[part].mean()) for part in bins], [p[0] for p in percentiles], [p[1] for p in percentiles]
