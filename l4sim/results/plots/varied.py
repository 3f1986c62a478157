"""Drawing a sweep: the setting that makes the x axis, a panel for each combination of the others, a line per policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.results.plots.style import log_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from pandas import DataFrame

RATES = ("rate_per_s", "synth.rate_per_s", "rate_scale", "concurrency")
MAX_PANELS = 6
# A wider range than this is shown on a logarithmic axis.
_LOG_RANGE = 8
# So many values have room for a number each on the axis.
_MOST_TICKS = 8
# Between policies' marks at the same value, whose intervals would cover one another.
_DODGE_POINTS = 3.0

_MARK: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "none"}
_LABELS = {
    "rate_per_s": "arrival rate (requests/s)",
    "synth.rate_per_s": "arrival rate (requests/s)",
    "rate_scale": "arrival rate (times the trace's)",
    "concurrency": "requests at a time",
    "instances": "instances",
}


def axis(table: DataFrame, settings: Sequence[str]) -> str | None:
    """The setting that pictures are drawn against: a rate if one was varied, else the first number that was."""
    varied = [
        name for name in settings if name in table and table[name].nunique() > 1 and table[name].dtype.kind in "iuf"
    ]
    return next((name for name in RATES if name in varied), varied[0] if varied else None)


def combinations(table: DataFrame, others: Sequence[str]) -> list[tuple[str, DataFrame]]:
    """The rows of every combination of the other settings that were varied, with its title.

    Raises:
        InputError: more than `MAX_PANELS`.
    """
    varied = [name for name in others if name in table and table[name].nunique(dropna=False) > 1]
    if not varied:
        return [("", table)]
    found = [
        (", ".join(f"{name} {value}" for name, value in zip(varied, values, strict=True)), rows)
        for values, rows in table.groupby(varied, sort=False, dropna=False)
    ]
    if len(found) > MAX_PANELS:
        raise InputError(
            f"{len(found)} combinations of {', '.join(varied)}: a picture has room for {MAX_PANELS}, choose some"
        )
    return found


def draw_line(
    ax: Axes,
    line: DataFrame,
    x: str,
    metric: str,
    *,
    colour: str,
    scale: float = 1.0,
    hollow: NDArray[np.bool_] | None = None,
    dodge: float = 0.0,
) -> None:
    """Draw ``scale`` times a column against ``x``, with its confidence intervals where it has any.

    ``hollow`` marks are not filled. ``dodge`` shifts the line a little to the right, by so many places, so that the
    intervals of several policies do not cover one another; without intervals nothing is shifted.
    """
    from matplotlib.transforms import ScaledTranslation

    position, middle = line[x].to_numpy(), scale * line[metric].to_numpy()
    half = scale * line.get(f"{metric}_ci95", line[metric] * np.nan).to_numpy(dtype=np.float64)
    [joined] = ax.plot(position, middle, color=colour)
    # Below the middle a thousandth is left: a bar to zero and beyond could not be drawn on a logarithmic axis.
    bars = np.nan_to_num(np.stack([np.minimum(half, 0.999 * middle), half]))
    intervals = ax.errorbar(position, middle, yerr=bars, ecolor=colour, fmt="none", capsize=2, elinewidth=0.8)
    filled = np.ones(len(line), dtype=bool) if hollow is None else ~hollow
    marks = [
        *ax.plot(position[filled], middle[filled], color=colour, **_MARK),
        *ax.plot(position[~filled], middle[~filled], color=colour, markerfacecolor="white", **_MARK),
    ]
    if np.isfinite(half).any():
        # Moved afterwards: matplotlib takes the limits of the axes from where a line was drawn first.
        place = ax.transData + ScaledTranslation(dodge * _DODGE_POINTS / 72, 0, ax.figure.dpi_scale_trans)
        for artist in (joined, *marks, *intervals.get_children()):
            artist.set_transform(place)


def draw_axis(ax: Axes, rows: DataFrame, x: str) -> None:
    """Label the x axis, with a number at every value if there are few."""
    values = np.unique(rows[x].to_numpy(dtype=np.float64))
    if values[0] > 0 and values[-1] >= _LOG_RANGE * values[0]:
        log_scale(ax, "x")
    if len(values) <= _MOST_TICKS:
        ax.set_xticks(values, [f"{value:,.10g}" for value in values])
        ax.minorticks_off()
    ax.set_xlabel(_LABELS.get(x, x))


def policy_handles(policies: Sequence[str], colour: dict[str, str]) -> list[Line2D]:
    """One legend entry per policy."""
    return [handle(colour[policy], policy, marker="o", markersize=4) for policy in policies]


def handle(colour: str, label: str, **style: object) -> Line2D:
    """A legend entry."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, label=label, **style)  # type: ignore[arg-type]
