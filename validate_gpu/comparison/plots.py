"""Pictures of a validation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l4sim.results.plots.style import BLACK, BLUE, RC, VERMILION, colours, legend, log_scale, panels, save
from validate_gpu.comparison.compare import Comparison
from validate_gpu.comparison.migrations import copied

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More points than this hide one another.
_MOST_POINTS = 4000
_COLUMNS = 3
# Of a run, each with a median.
_PIECES = 40
_NAMES = {"ttft_s": "TTFT (s)", "tpot_s": "TPOT (s)", "e2e_s": "E2E latency (s)"}


def draw(comparison: Comparison, out: Path) -> dict[str, Path]:
    """Draw what there is something to show of; returns the files by caption."""
    import matplotlib as mpl

    pictures: dict[str, tuple[str, Callable[[Comparison], Figure | None]]] = {
        "Latencies: measured (solid, all repeats) and predicted (dashed)": ("cdf", _cdf),
        "E2E latency of every request: predicted over measured (mean of the repeats)": ("scatter", _scatter),
        "Iterations: predicted over measured seconds, and the error of decodes by shape": ("iterations", _iterations),
        "The device over the runs: measured seconds of iterations over predicted ones, medians in order": (
            "device",
            _device,
        ),
        "Migrations by the KV blocks that they moved: real copies alone, and durations and pauses on the clock": (
            "migrations",
            _migrations,
        ),
    }
    written = {}
    for caption, (name, picture) in pictures.items():
        with mpl.rc_context(RC):
            figure = picture(comparison)
        path = out / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            written[caption] = save(figure, path)
    return written


def _cdf(comparison: Comparison) -> Figure:
    colour = colours(list(comparison.figures))
    figure, [axes] = panels(1, len(_NAMES), 2.4, entries=len(colour), sharey=True, gap_in=0.25)
    for ax, (metric, name) in zip(axes, _NAMES.items(), strict=True):
        for policy, runs in comparison.live.runs.items():
            measured = np.concatenate([_finished(one.run.requests, metric) for one in runs])
            _steps(ax, measured, color=colour[policy], label=policy)
            _steps(ax, _finished(comparison.predicted[policy].requests, metric), color=colour[policy], linestyle="--")
        log_scale(ax, "x")
        ax.set(xlabel=name, ylim=(0, 1.01))
    axes[0].set_ylabel("share of requests")
    legend(figure, axes[0].lines[::2])
    return figure


def _steps(ax: Axes, values: NDArray[np.float64], **style: Any) -> None:
    ax.step(np.sort(values), (np.arange(len(values)) + 1) / len(values), where="post", **style)


def _finished(requests: Any, metric: str) -> NDArray[np.float64]:
    values = requests[metric].to_numpy()
    return np.asarray(values[~np.isnan(values)])


def _scatter(comparison: Comparison) -> Figure:
    policies, colour = list(comparison.figures), colours(list(comparison.figures))
    columns = min(_COLUMNS, len(policies))
    figure, rows = panels(-(-len(policies) // columns), columns, 2.4, titled=True, gap_in=0.6)
    axes = [ax for row in rows for ax in row]
    for ax, policy in zip(axes, policies, strict=False):
        measured = np.mean([one.run.requests["e2e_s"].to_numpy() for one in comparison.live.runs[policy]], axis=0)
        predicted = comparison.predicted[policy].requests["e2e_s"].to_numpy()
        _against(ax, measured, predicted, colour[policy])
        ax.set(xlabel="measured E2E (s)", title=policy)
    for ax in axes[len(policies) :]:
        ax.set_visible(False)
    axes[0].set_ylabel("predicted E2E (s)")
    return figure


def _against(ax: Axes, measured: NDArray[np.float64], predicted: NDArray[np.float64], colour: str) -> None:
    """Points, and the line on which prediction equals measurement."""
    kept = (measured > 0) & (predicted > 0)
    measured, predicted = measured[kept], predicted[kept]
    if len(measured):
        both = np.concatenate([measured, predicted])
        ends = [both.min(), both.max()]
        ax.plot(ends, ends, color="#999999", linewidth=0.8)
        ax.plot(measured, predicted, ".", color=colour, markersize=3, alpha=0.5)
    log_scale(ax, "x")
    log_scale(ax, "y")


def _iterations(comparison: Comparison) -> Figure | None:
    table = comparison.iterations
    if not len(table):
        return None
    figure, [axes] = panels(1, 2, 2.8, entries=2, titled=True, gap_in=1.0, right_in=0.8)
    prompts = table["prefill_tokens"].to_numpy() > 0
    measured_s, predicted_s = table["seconds"].to_numpy(), table["predicted_s"].to_numpy()
    sample = np.random.default_rng(0).permutation(len(table))[:_MOST_POINTS]
    for kind, mask, colour in (("decodes alone", ~prompts, BLUE), ("with prompts", prompts, VERMILION)):
        rows = sample[mask[sample]]
        axes[0].plot(1e3 * measured_s[rows], 1e3 * predicted_s[rows], ".", color=colour, markersize=2, label=kind)
    legend(figure, axes[0].lines)
    ends = [1e3 * measured_s.min(), 1e3 * measured_s.max()]
    axes[0].plot(ends, ends, color="#999999", linewidth=0.8)
    log_scale(axes[0], "x")
    log_scale(axes[0], "y")
    axes[0].set(xlabel="measured (ms)", ylabel="predicted (ms)", title="single iterations")
    _error_map(figure, axes[1], table[~prompts])
    return figure


def _error_map(figure: Figure, ax: Axes, decodes: Any) -> None:
    """The error of summed seconds over powers of two of requests and of context tokens."""
    requests, tokens = (np.log2(decodes[name].to_numpy(dtype=float)) for name in ("decode_requests", "context_tokens"))
    ax.set(xlabel="requests", ylabel="context tokens", title="error of decodes alone, %")
    ax.grid(False)
    if not len(requests):
        return
    edges = [np.arange(np.floor(values.min()), np.floor(values.max()) + 2) for values in (requests, tokens)]
    sums = [
        np.histogram2d(requests, tokens, bins=edges, weights=decodes[name].to_numpy())[0]
        for name in ("seconds", "predicted_s")
    ]
    with np.errstate(invalid="ignore"):
        error_pct = 100 * (sums[1] / sums[0] - 1)
    shown = ax.pcolormesh(2.0 ** edges[0], 2.0 ** edges[1], error_pct.T, cmap="PuOr", vmin=-30, vmax=30)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    figure.colorbar(shown, ax=ax)


def _device(comparison: Comparison) -> Figure | None:
    """Shows whether errors come from a device that slows down or shares its time, or from a wrong cost model."""
    table = comparison.iterations
    if not len(table):
        return None
    colour, drifts = colours(list(comparison.figures)), comparison.slowness is not None
    figure, [[ax]] = panels(1, 1, 1.8, entries=len(colour) + drifts)
    parts = table.assign(ratio=table["seconds"] / table["predicted_s"]).groupby(["repeat", "policy"], sort=False)
    runs = dict(iter(parts))
    for position, (repeat, policy) in enumerate(product(sorted(set(table["repeat"])), comparison.figures)):
        if (repeat, policy) in runs:
            medians = _piecewise(runs[repeat, policy]["ratio"])
            at = position + np.arange(len(medians)) / _PIECES
            ax.plot(at, medians, color=colour[policy], label=policy if repeat == 0 else None)
            if drifts:
                ax.plot(at, _piecewise(runs[repeat, policy]["slowness"]), ":", color="#666666", linewidth=0.8)
    ax.axhline(1.0, color="#999999", linewidth=0.8)
    ax.set(xlabel="run", ylabel="measured / predicted", ylim=(0, None))
    handles, _ = ax.get_legend_handles_labels()
    legend(figure, [*handles, *ax.plot([], [], ":", color="#666666", label="device's slowness")] if drifts else handles)
    return figure


def _piecewise(values: Any) -> list[float]:
    """Medians of consecutive pieces of a run's column."""
    return [float(np.median(piece)) for piece in np.array_split(values.to_numpy(), _PIECES) if len(piece)]


def _migrations(comparison: Comparison) -> Figure | None:
    measured = [one.run.migrations for runs in comparison.live.runs.values() for one in runs]
    sides = {"measured": measured, "predicted": [run.migrations for run in comparison.predicted.values()]}
    block_tokens = comparison.setup.engine.block_tokens
    block_bytes = comparison.setup.model.kv_bytes_per_token * block_tokens
    copies = [copy for runs in comparison.live.runs.values() for one in runs for copy in one.copies]
    if not any(len(copied(table)) for table in measured):
        return None
    figure, [axes] = panels(1, 2, 2.4, entries=4, titled=True, gap_in=0.9)
    if copies:
        copied_blocks = [copy.tokens / block_tokens for copy in copies]
        axes[0].plot(copied_blocks, [1e3 * copy.seconds for copy in copies], ".", color=BLACK, markersize=3, alpha=0.5)
    axes[0].set(xlabel="KV blocks copied", ylabel="ms", title="copies on the device")
    for (side, tables), marker in zip(sides.items(), ("o", "x"), strict=True):
        for table in map(copied, tables):
            blocks = table["copied_bytes"] / block_bytes
            lasted_s = table["end_s"] - table["start_s"]
            for what, seconds, colour in (("duration", lasted_s, BLUE), ("pause", table["pause_s"], VERMILION)):
                axes[1].plot(blocks, 1e3 * seconds, marker, color=colour, markersize=3, label=f"{what}, {side}")
    axes[1].set(xlabel="KV blocks moved", ylabel="ms", title="migrations on the clock")
    for ax in axes:
        log_scale(ax, "x")
        log_scale(ax, "y")
    handles, names = axes[1].get_legend_handles_labels()
    legend(figure, list(dict(zip(names, handles, strict=True)).values()))
    return figure
