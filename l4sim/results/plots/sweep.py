"""Pictures of a sweep: latency, goodput and SLO attainment against what was varied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l4sim.errors import InputError
from l4sim.results.plots.style import BLACK, colours, legend, log_scale, panels
from l4sim.results.write import unwritable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

RATES = ("rate_per_s", "synth.rate_per_s", "rate_scale")
MAX_PANELS = 6
MAX_RATES = 3
# Throughput that has less than this to gain, while the rate has more, no longer follows the rate.
_THROUGHPUT_GAIN, _RATE_GAIN = 1.1, 1.25
# A wider range than this is shown on a logarithmic axis.
_LOG_RANGE = 8
# So many values have room for a number each on the axis.
_MOST_TICKS = 8

_LABELS = {
    "rate_per_s": "arrival rate (requests/s)",
    "synth.rate_per_s": "arrival rate (requests/s)",
    "rate_scale": "arrival rate (times the trace's)",
    "instances": "instances",
}
_TITLES = {"rate_per_s": "{:g} requests/s", "synth.rate_per_s": "{:g} requests/s", "rate_scale": "{:g} times the rate"}
_LATENCY_PANELS = (
    ("normalized_latency_mean_s", "mean E2E / output tokens (ms)", 1e3),
    ("ttft_p99_s", "P99 TTFT (s)", 1.0),
)
_ATTAINMENT = "slo_attainment_at_"


def draw_sweep(means: DataFrame, settings: Sequence[str], out_dir: Path) -> list[Path]:
    """Draw every picture that the sweep has something for; return the files.

    ``means`` has one row per setting, as `l4sim.sweeps.seeds.over_seeds` makes it; ``settings`` names its columns that
    say what was varied. Pictures with nothing to show are not drawn, and removed if an earlier call left one.

    Raises:
        InputError: more combinations than panels, or a folder that cannot be written to.
    """
    import matplotlib as mpl

    from l4sim.results.plots.style import RC, save

    pictures = {
        "latency.png": latency_against_load,
        "goodput.png": goodput_against_load,
        "slo_attainment.png": attainment_against_scale,
    }
    written = []
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(RC):
            for name, draw in pictures.items():
                figure = draw(means, settings)
                if figure is None:
                    (out_dir / name).unlink(missing_ok=True)
                else:
                    written.append(save(figure, out_dir / name))
    except OSError as error:
        raise unwritable(out_dir, error) from error
    return written


def latency_against_load(means: DataFrame, settings: Sequence[str]) -> Figure | None:
    """Mean normalized latency and P99 TTFT against the rate, or whatever number was varied; None if none was.

    One row of panels per combination of the other settings. Bars are 95 % confidence intervals over seeds. Where the
    rate was varied, hollow marks stand where throughput no longer follows it. Raises InputError for more than
    `MAX_PANELS` combinations.
    """
    x = _axis(means, settings)
    if x is None:
        return None
    combinations = _combinations(means, [name for name in settings if name not in ("policy", x)])
    policies = list(dict.fromkeys(means["policy"]))
    colour = colours(policies)
    saturating = x in RATES
    figure, axes = panels(
        len(combinations), 2, 2.6, entries=len(policies) + saturating, titled=len(combinations) > 1, gap_in=0.85
    )
    for row, (title, rows) in zip(axes, combinations, strict=True):
        for ax, (metric, label, scale) in zip(row, _LATENCY_PANELS, strict=True):
            for policy in policies:
                line = rows[rows["policy"] == policy].sort_values(x)
                hollow = _saturated(line, x) if saturating else np.zeros(len(line), dtype=bool)
                _draw_line(ax, line, x, metric, scale, colour[policy], policy, hollow)
            log_scale(ax, "y")
            _draw_axis(ax, rows, x)
            ax.set(ylabel=label, title=title)
    handles = _policy_handles(policies, colour)
    if saturating:
        handles.append(_handle(BLACK, "hollow: saturated", marker="o", markerfacecolor="white", linestyle="none"))
    legend(figure, handles)
    return figure


def goodput_against_load(means: DataFrame, settings: Sequence[str]) -> Figure | None:
    """Requests per second within the SLO against the rate, or whatever number was varied; None without an SLO on
    requests. The dotted line is where goodput equals the rate. Raises like `latency_against_load`.
    """
    x = _axis(means, settings)
    if x is None or "goodput_requests_per_s" not in means:
        return None
    combinations = _combinations(means, [name for name in settings if name not in ("policy", x)])
    policies = list(dict.fromkeys(means["policy"]))
    colour = colours(policies)
    equal = x in ("rate_per_s", "synth.rate_per_s")
    figure, axes = panels(len(combinations), 1, 2.6, entries=len(policies) + equal, titled=len(combinations) > 1)
    for [ax], (title, rows) in zip(axes, combinations, strict=True):
        for policy in policies:
            line = rows[rows["policy"] == policy].sort_values(x)
            none = np.zeros(len(line), dtype=bool)
            _draw_line(ax, line, x, "goodput_requests_per_s", 1.0, colour[policy], policy, none)
        top = ax.get_ylim()[1]
        if equal:
            # Many points: a straight line is a curve on a logarithmic axis.
            rates = np.linspace(rows[x].min(), rows[x].max(), 200)
            ax.plot(rates, rates, color=BLACK, linestyle=":", linewidth=1)
        _draw_axis(ax, rows, x)
        ax.set(ylabel="goodput (requests/s)", ylim=(0, 1.05 * top), title=title)
    handles = _policy_handles(policies, colour)
    if equal:
        handles.append(_handle(BLACK, "every request within the SLO", linestyle=":"))
    legend(figure, handles)
    return figure


def attainment_against_scale(means: DataFrame, settings: Sequence[str]) -> Figure | None:
    """Share of requests within a multiple of the SLO, against the multiple; None without an SLO on requests.

    One panel for each of the lowest, middle and highest rates (or other number varied), one row per combination of
    the other settings. Raises like `latency_against_load`.
    """
    columns = [name for name in means.columns if name.startswith(_ATTAINMENT) and not name.endswith("_ci95")]
    if not columns:
        return None
    scales = [float(name.removeprefix(_ATTAINMENT)) for name in columns]
    x = _axis(means, settings)
    combinations = _combinations(means, [name for name in settings if name not in ("policy", x)])
    policies = list(dict.fromkeys(means["policy"]))
    colour = colours(policies)
    values = [None] if x is None else _spread(sorted(means[x].dropna().unique().tolist()))
    figure, axes = panels(
        len(combinations), len(values), 2.4, entries=len(policies), titled=True, gap_in=0.3, sharex=True, sharey=True
    )
    for panel_row, (title, rows) in zip(axes, combinations, strict=True):
        for ax, value in zip(panel_row, values, strict=True):
            shown = rows if value is None else rows[rows[x] == value]
            for policy, row in zip(shown["policy"], shown[columns].to_numpy(dtype=np.float64), strict=True):
                ax.plot(scales, 100 * row, color=colour[policy], marker="o", markersize=3)
            ax.axvline(1, color=BLACK, linestyle=":", linewidth=1)
            log_scale(ax, "x")
            at = "" if value is None else _TITLES.get(str(x), f"{x} {{:g}}").format(value)
            ax.set(ylim=(0, 102), title=", ".join(filter(None, (title, at))))
        panel_row[0].set_ylabel("SLO attainment (%)")
    for ax in axes[-1]:
        ax.set_xlabel("SLO scale (times the limits)")
    legend(figure, _policy_handles(policies, colour))
    return figure


def _axis(means: DataFrame, settings: Sequence[str]) -> str | None:
    """The setting that the pictures are drawn against: a rate if one was varied, else the first number that was."""
    varied = [
        name for name in settings if name in means and means[name].nunique() > 1 and means[name].dtype.kind in "iuf"
    ]
    return next((name for name in RATES if name in varied), varied[0] if varied else None)


def _combinations(means: DataFrame, others: Sequence[str]) -> list[tuple[str, DataFrame]]:
    """The rows of every combination of the other settings that were varied, with its title."""
    varied = [name for name in others if name in means and means[name].nunique(dropna=False) > 1]
    if not varied:
        return [("", means)]
    found = [
        (", ".join(f"{name} {value}" for name, value in zip(varied, values, strict=True)), rows)
        for values, rows in means.groupby(varied, sort=False, dropna=False)
    ]
    if len(found) > MAX_PANELS:
        raise InputError(
            f"{len(found)} combinations of {', '.join(varied)}: a picture has room for {MAX_PANELS}, choose some"
        )
    return found


def _saturated(line: DataFrame, x: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether throughput at each rate is near what the highest rate gets, though that rate is well above."""
    throughput, rate = line["throughput_requests_per_s"].to_numpy(), line[x].to_numpy()
    if not len(rate):
        return np.zeros(0, dtype=bool)
    first = (throughput.max() < _THROUGHPUT_GAIN * throughput) & (rate.max() > _RATE_GAIN * rate)
    return np.asarray(rate >= rate[first].min()) if first.any() else np.zeros(len(rate), dtype=bool)


def _draw_line(
    ax: Axes,
    line: DataFrame,
    x: str,
    metric: str,
    scale: float,
    colour: str,
    label: str,
    hollow: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> None:
    position, middle = line[x].to_numpy(), scale * line[metric].to_numpy()
    half = scale * line[f"{metric}_ci95"].to_numpy(dtype=np.float64)
    ax.plot(position, middle, color=colour, label=label)
    for chosen, face in ((~hollow, colour), (hollow, "white")):
        ax.plot(
            position[chosen],
            middle[chosen],
            color=colour,
            marker="o",
            markersize=4,
            markerfacecolor=face,
            linestyle="none",
        )
    # A bar to zero and below could not be drawn on a logarithmic axis.
    bars = np.stack([np.minimum(half, 0.9 * middle), half])
    ax.errorbar(position, middle, yerr=np.nan_to_num(bars), ecolor=colour, fmt="none", capsize=2, elinewidth=0.8)


def _draw_axis(ax: Axes, rows: DataFrame, x: str) -> None:
    values = np.unique(rows[x].to_numpy(dtype=np.float64))
    if values[0] > 0 and values[-1] >= _LOG_RANGE * values[0]:
        log_scale(ax, "x")
    if len(values) <= _MOST_TICKS:
        ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.set_xlabel(_LABELS.get(x, x))


def _policy_handles(policies: Sequence[str], colour: dict[str, str]) -> list[object]:
    return [_handle(colour[policy], policy, marker="o", markersize=4) for policy in policies]


def _handle(colour: str, label: str, **style: object) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, label=label, **style)  # type: ignore[arg-type]


def _spread(values: Sequence[float]) -> list[float | None]:
    """The lowest, the middle and the highest."""
    if len(values) <= MAX_RATES:
        return list(values)
    return [values[0], values[len(values) // 2], values[-1]]
