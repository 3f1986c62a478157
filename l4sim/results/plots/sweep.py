"""Pictures of a sweep: latency, goodput and SLO attainment against what was varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from l4sim.results.plots.style import BLACK, colours, legend, log_scale, panels
from l4sim.results.plots.varied import RATES, axis, combinations, draw_axis, draw_line, handle, policy_handles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

    from l4sim.results.slo import SLO

MAX_RATES = 3
# Throughput that has less than this to gain, while the rate has more, no longer follows the rate.
_THROUGHPUT_GAIN, _RATE_GAIN = 1.1, 1.25
# Intervals wider than this, times the highest and over the lowest mean, leave the picture instead of flattening it.
_MOST_OF_INTERVAL = 3

_TITLES = {
    "rate_per_s": "{:g} requests/s",
    "synth.rate_per_s": "{:g} requests/s",
    "rate_scale": "{:g} times the rate",
    "concurrency": "{:g} at a time",
}
_LATENCY_PANELS = (
    ("normalized_latency_mean_s", "mean E2E / output tokens (ms)", 1e3),
    ("ttft_p99_s", "P99 TTFT (s)", 1.0),
)
_ATTAINMENT = "slo_attainment_at_"
_MARKED_SCALES = (0.25, 0.5, 1, 2, 4)


def latency_against_load(means: DataFrame, settings: Sequence[str]) -> Figure | None:
    """Mean normalized latency and P99 TTFT against the rate, or whatever number was varied; None if none was, or no
    request finished.

    One row of panels per combination of the other settings. Bars are 95 % confidence intervals over seeds. Where the
    rate was varied, hollow marks stand where throughput no longer follows it. Raises InputError for more than
    `MAX_PANELS` combinations.
    """
    x = axis(means, settings)
    if x is None:
        return None
    # Where no request has finished there is no latency.
    means = means.dropna(subset=[name for name, _, _ in _LATENCY_PANELS])
    if not len(means):
        return None
    parts = combinations(means, [name for name in settings if name not in ("policy", x)])
    policies = list(dict.fromkeys(means["policy"]))
    colour = colours(policies)
    saturated = x in RATES and any(_saturated(line, x).any() for _, rows in parts for _, line in rows.groupby("policy"))
    figure, axes = panels(len(parts), 2, 2.6, entries=len(policies) + saturated, titled=len(parts) > 1, gap_in=0.85)
    for row, (title, rows) in zip(axes, parts, strict=True):
        for ax, (metric, label, scale) in zip(row, _LATENCY_PANELS, strict=True):
            for place, policy in enumerate(policies):
                line = rows[rows["policy"] == policy].sort_values(x)
                hollow = _saturated(line, x) if saturated else None
                dodge = place - (len(policies) - 1) / 2
                draw_line(ax, line, x, metric, colour=colour[policy], scale=scale, hollow=hollow, dodge=dodge)
            _limit(ax, scale * rows[metric])
            log_scale(ax, "y")
            draw_axis(ax, rows, x)
            ax.set(ylabel=label, title=title)
    handles = policy_handles(policies, colour)
    if saturated:
        handles.append(handle(BLACK, "hollow: saturated", marker="o", markerfacecolor="white", linestyle="none"))
    legend(figure, handles)
    return figure


def goodput_against_load(means: DataFrame, settings: Sequence[str], slo: SLO) -> Figure | None:
    """Requests per second within the SLO against the rate, or whatever number was varied; None without an SLO on
    requests. The dotted line is where goodput equals the rate. Raises like `latency_against_load`.
    """
    x = axis(means, settings)
    if x is None or "goodput_requests_per_s" not in means:
        return None
    parts = combinations(means, [name for name in settings if name not in ("policy", x)])
    policies = list(dict.fromkeys(means["policy"]))
    colour = colours(policies)
    equal = x in ("rate_per_s", "synth.rate_per_s")
    figure, axes = panels(len(parts), 1, 2.6, entries=len(policies) + equal, titled=True)
    for [ax], (title, rows) in zip(axes, parts, strict=True):
        for place, policy in enumerate(policies):
            line = rows[rows["policy"] == policy].sort_values(x)
            dodge = place - (len(policies) - 1) / 2
            draw_line(ax, line, x, "goodput_requests_per_s", colour=colour[policy], dodge=dodge)
        top = min(ax.get_ylim()[1], _MOST_OF_INTERVAL * rows["goodput_requests_per_s"].max()) or 1.0
        if equal:
            # Many points: a straight line is a curve on a logarithmic axis.
            rates = np.linspace(rows[x].min(), rows[x].max(), 200)
            ax.plot(rates, rates, color=BLACK, linestyle=":", linewidth=1)
        draw_axis(ax, rows, x)
        ax.set(
            ylabel="goodput (requests/s)",
            ylim=(0, 1.05 * top),
            title=", ".join(filter(None, (title, f"requests with {slo.requests_description}"))),
        )
    handles = policy_handles(policies, colour)
    if equal:
        handles.append(handle(BLACK, "every request that arrives", linestyle=":"))
    legend(figure, handles)
    return figure


def attainment_against_scale(means: DataFrame, settings: Sequence[str], slo: SLO) -> Figure | None:
    """Share of requests within a multiple of the SLO, against the multiple; None without an SLO on requests.

    One panel for each of the lowest, middle and highest rates (or other number varied), one row per combination of
    the other settings. Raises like `latency_against_load`.
    """
    columns = [name for name in means.columns if name.startswith(_ATTAINMENT) and not name.endswith("_ci95")]
    if not columns:
        return None
    scales = [float(name.removeprefix(_ATTAINMENT)) for name in columns]
    x = axis(means, settings)
    parts = combinations(means, [name for name in settings if name not in ("policy", x)])
    policies = list(dict.fromkeys(means["policy"]))
    colour = colours(policies)
    values = [None] if x is None else _spread(sorted(means[x].dropna().unique().tolist()))
    figure, axes = panels(
        len(parts), len(values), 2.4, entries=len(policies) + 1, titled=True, gap_in=0.3, sharex=True, sharey=True
    )
    for panel_row, (title, rows) in zip(axes, parts, strict=True):
        for ax, value in zip(panel_row, values, strict=True):
            shown = rows if value is None else rows[rows[x] == value]
            for policy, row in zip(shown["policy"], shown[columns].to_numpy(dtype=np.float64), strict=True):
                ax.plot(scales, 100 * row, color=colour[policy], marker="o", markersize=3)
            ax.axvline(1, color=BLACK, linestyle=":", linewidth=1)
            log_scale(ax, "x")
            ax.set_xticks(_MARKED_SCALES, [f"{scale:g}" for scale in _MARKED_SCALES])
            ax.minorticks_off()
            at = "" if value is None else _TITLES.get(str(x), f"{x} {{:g}}").format(value)
            ax.set(ylim=(0, 102), title=", ".join(filter(None, (title, at))))
        panel_row[0].set_ylabel("requests within limits (%)")
    for ax in axes[-1]:
        ax.set_xlabel("SLO scale (times the limits)")
    legend(figure, [*policy_handles(policies, colour), handle(BLACK, f"1: {slo.requests_description}", linestyle=":")])
    return figure


def _limit(ax: Axes, middles: Series[float]) -> None:
    """Limit the y axis, so that wide intervals do not flatten the lines: they are cut off instead."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, middles.min() / _MOST_OF_INTERVAL), min(high, middles.max() * _MOST_OF_INTERVAL))


def _saturated(line: DataFrame, x: str) -> NDArray[np.bool_]:
    """Which rates are saturated: the highest rate is well above, and hardly raises throughput any more."""
    throughput, rate = line["throughput_requests_per_s"].to_numpy(), line[x].to_numpy()
    if not len(rate):
        return np.zeros(0, dtype=bool)
    first = (throughput.max() < _THROUGHPUT_GAIN * throughput) & (rate.max() > _RATE_GAIN * rate)
    return np.asarray(rate >= rate[first].min()) if first.any() else np.zeros(len(rate), dtype=bool)


def _spread(values: Sequence[float]) -> list[float | None]:
    """The lowest, the middle and the highest of the values."""
    if len(values) <= MAX_RATES:
        return list(values)
    return [values[0], values[len(values) // 2], values[-1]]
