"""The plan as ranges of context length over time, with the migrations between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from l4sim.policies.plan import Stage
from l4sim.results.plots.style import BLUE, GREY, VERMILION, legend, log_scale, panels
from l4sim.results.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# (label, kind, statuses, marker, colour); the first is drawn below the others.
_MARKS = (
    ("refused or aborted", None, ("refused", "aborted"), "x", GREY),
    ("rebalance", "rebalance", ("done",), "o", BLUE),
    ("handover", "handover", ("done",), "^", VERMILION),
)
LABEL_GAP = 0.06


def plan_and_migrations(runs: Sequence[Run]) -> Figure | None:
    """Stages as bands of context length, as they were moved at run time, and a mark at every migration.

    One panel per policy that has a plan or asked for migrations; None if there is none.
    """
    from matplotlib.lines import Line2D

    runs = [run for run in runs if run.plan or len(run.migrations)]
    if not runs:
        return None
    end_s = max(_end_s(run) for run in runs)
    longest = max(_longest_tokens(run) for run in runs)
    shortest = max(1.0, min(min(_shortest_tokens(run) for run in runs), longest / 4))
    figure, axes = panels(len(runs), 1, 2.6, entries=len(_MARKS), titled=True, right_in=1.3, sharex=True)
    for [ax], run in zip(axes, runs, strict=True):
        ax.set(xlim=(0, end_s), ylim=(shortest, longest), ylabel="context length (tokens)", title=run.policy)
        log_scale(ax, "y")
        if run.plan:
            _draw_stages(ax, run, run.plan, end_s, shortest)
        for _, kind, statuses, marker, colour in _MARKS:
            _draw_migrations(ax, run, kind, statuses, marker, colour)
    axes[-1][0].set_xlabel("time (s)")
    legend(
        figure,
        [
            Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4, label=label)
            for label, _, _, marker, colour in _MARKS
        ],
    )
    return figure


def stage_bounds(run: Run, plan: Sequence[Stage], end_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When boundaries moved, and every stage's upper bound from then on.

    Shapes ``[times]`` in seconds, from 0 to ``end_s``, and ``[stages, times]`` in tokens.
    """
    moved_s = run.boundaries["time_s"].to_numpy()
    times_s = np.unique(np.concatenate([[0.0, end_s], moved_s]))
    bounds = np.repeat(np.array([[float(stage.hi_tokens)] for stage in plan]), len(times_s), axis=1)
    column = np.searchsorted(times_s, moved_s)
    moves = zip(column, run.boundaries["stage"].to_numpy(), run.boundaries["hi_tokens"].to_numpy(), strict=True)
    for first, stage, hi_tokens in moves:
        bounds[stage, first:] = hi_tokens
    return times_s, bounds


def _draw_stages(ax: Axes, run: Run, plan: Sequence[Stage], end_s: float, shortest: float) -> None:
    from matplotlib import colormaps

    times_s, bounds = stage_bounds(run, plan, end_s)
    lower = np.full(len(times_s), float(plan[0].lo_tokens))
    bottom, top = np.log(ax.get_ylim())
    last_label = -1.0
    for index, (stage, upper) in enumerate(zip(plan, bounds, strict=True)):
        colour = colormaps["viridis"](0.15 + 0.85 * index / max(len(plan) - 1, 1))
        ax.fill_between(times_s, np.maximum(lower, shortest), upper, step="post", color=colour, alpha=0.3, linewidth=0)
        middle = np.sqrt(max(lower[-1], shortest) * max(upper[-1], shortest))
        height = (np.log(middle) - bottom) / (top - bottom)
        if height - last_label >= LABEL_GAP:
            count = len(stage.instances)
            text = f"stage {index}: {count} instance{'s' * (count != 1)}"
            ax.text(1.01, height, text, transform=ax.transAxes, va="center", fontsize=8)
            last_label = height
        lower = upper


def _draw_migrations(ax: Axes, run: Run, kind: str | None, statuses: Sequence[str], marker: str, colour: str) -> None:
    table = run.migrations
    chosen = table["status"].isin(statuses).to_numpy()
    if kind is not None:
        chosen = chosen & (table["kind"] == kind).to_numpy()
    time_s = table["start_s"].fillna(table["asked_s"]).to_numpy()[chosen]
    # A request that had not begun has no context: it stands at the bottom, where a logarithmic axis has no zero.
    tokens = np.maximum(table["context_tokens"].to_numpy()[chosen], ax.get_ylim()[0])
    ax.plot(
        time_s,
        tokens,
        color=colour,
        marker=marker,
        linestyle="none",
        markersize=3,
        alpha=0.5,
        markeredgewidth=0.6,
        clip_on=False,
    )


def _end_s(run: Run) -> float:
    ends = [run.iterations["end_s"], run.migrations["end_s"], run.migrations["asked_s"], run.boundaries["time_s"]]
    return max((float(end.max()) for end in ends if end.notna().any()), default=1.0)


def _longest_tokens(run: Run) -> float:
    planned = run.plan[-1].hi_tokens if run.plan else 1
    return float(max(planned, run.migrations["context_tokens"].to_numpy().max(initial=1), 2))


def _shortest_tokens(run: Run) -> float:
    """The bottom of the picture: below the lowest boundary and the shortest migrated request that had begun."""
    bounds = [stage.hi_tokens for stage in (run.plan or ())] + run.boundaries["hi_tokens"].tolist()
    migrated = run.migrations["context_tokens"].to_numpy()
    return float(min([*bounds, *migrated[migrated > 0]], default=np.inf)) / 4
