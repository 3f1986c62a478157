"""Capacity: the highest rate, or the fewest instances, with which each policy meets an SLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from l4sim.results.numbers import precise
from l4sim.results.plots.style import colours, legend, panels
from l4sim.results.plots.varied import axis, combinations, draw_axis, draw_line, policy_handles

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from l4sim.results.slo import SLO

_LABELS = {"rate_per_s": "highest arrival rate (requests/s)", "instances": "fewest instances"}
_COST = "usd_per_million_output_tokens"
_BAR_IN = 0.26
_LINE_CHARACTERS = 110


def capacity_by_policy(found: DataFrame, settings: Sequence[str], searched: str, slo: SLO) -> Figure | None:
    """The capacity of every policy: bars, or lines against a number that was varied; None if none was found.

    ``found`` has one row per combination, as `l4sim.sweeps.capacity.search_capacity` gives it, ``settings`` names its
    columns that say what was varied, ``searched`` is ``rate_per_s`` or ``instances``. One panel per combination of the
    other settings. Raises InputError for more than `MAX_PANELS`.
    """
    if not _bounded(found).any():
        return None
    others = [name for name in settings if name not in ("policy", searched)]
    x = axis(found, others)
    parts = combinations(found, [name for name in others if name != x])
    return _bars(parts, searched, slo) if x is None else _lines(parts, x, searched, slo)


def _bars(parts: Sequence[tuple[str, DataFrame]], searched: str, slo: SLO) -> Figure:
    heights_in = [_BAR_IN * len(rows) for _, rows in parts]
    right_in = 1.9 if any(_COST in rows for _, rows in parts) else 0.8
    figure, axes = panels(len(parts), 1, heights_in, titled=len(parts) > 1, left_in=1.4, right_in=right_in, sharex=True)
    for [ax], (title, rows) in zip(axes, parts, strict=True):
        policies = rows["policy"].tolist()
        colour = colours(policies)
        bounded = _bounded(rows)
        values = np.where(bounded, rows[searched].to_numpy(dtype=np.float64), 0.0)
        ax.barh(policies, values, color=[colour[policy] for policy in policies], height=0.7)
        for place, (value, row) in enumerate(zip(values, rows.to_dict("records"), strict=True)):
            text = _capacity_text(value, row) if bounded[place] else str(row["error"])
            ax.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.set(title=title, xlim=(0, None))
    axes[-1][0].set_xlabel(fill(f"{_LABELS[searched]} with {slo.description}", _LINE_CHARACTERS))
    return figure


def _lines(parts: Sequence[tuple[str, DataFrame]], x: str, searched: str, slo: SLO) -> Figure:
    policies = list(dict.fromkeys(policy for _, rows in parts for policy in rows["policy"]))
    colour = colours(policies)
    figure, axes = panels(len(parts), 1, 2.6, entries=len(policies), titled=True)
    for [ax], (title, rows) in zip(axes, parts, strict=True):
        for policy in policies:
            line = rows[(rows["policy"] == policy) & _bounded(rows)].sort_values(x)
            draw_line(ax, line.astype({searched: float}), x, searched, colour=colour[policy])
        draw_axis(ax, rows, x)
        ax.set(
            ylabel=_LABELS[searched].replace(" (", "\n("),
            title=", ".join(filter(None, (title, f"with {slo.description}"))),
        )
        ax.set_ylim(bottom=0)
    legend(figure, policy_handles(policies, colour))
    return figure


def _bounded(rows: DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows have a capacity. The others say why not as their error: the SLO is met nowhere, or at any rate."""
    return np.asarray(rows["error"].fillna("") == "")


def _capacity_text(value: float, row: Mapping[Any, Any]) -> str:
    cost = row.get(_COST)
    return precise(value) + (f" ({precise(cost)} USD/10⁶ tokens)" if isinstance(cost, float) else "")
