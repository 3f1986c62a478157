"""A picture of a plan: its stages over the lengths of the requests that it was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l4sim.policies.l4.demand import Demand
from l4sim.policies.l4.partition import Partition
from l4sim.results.plots.style import BLUE, RC, VERMILION, legend, log_scale, panels, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_partition(made: Partition, demand: Demand, path: Path) -> Path:
    """Write a picture of prompts and decoding by context length, the stages as bands with their instances.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib import rc_context

    from l4sim.errors import InputError

    with rc_context(RC):
        figure, [[ax]] = panels(1, 1, 2.8, entries=2, right_in=0.4)
        edges = np.maximum(demand.edges_tokens.astype(np.float64), demand.edges_tokens[1] / 2)
        for values, label, colour in (
            (demand.arrivals_per_s, "prompts", BLUE),
            (demand.decode_tokens_per_s, "decoded tokens", VERMILION),
        ):
            ax.stairs(100 * values / max(values.sum(), 1e-300), edges, color=colour, label=label, linewidth=1.5)
        ax.set(xlim=(edges[0], edges[-1]), xlabel="context length (tokens)", ylabel="share per bucket (%)")
        ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
        log_scale(ax, "x")
        _draw_stages(ax, made, edges[0])
        legend(figure, ax.get_legend_handles_labels()[0])
        try:
            return save(figure, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _draw_stages(ax: Axes, made: Partition, shortest: float) -> None:
    from matplotlib import colormaps

    count = len(made.plan.stages)
    for number, stage in enumerate(made.plan.stages):
        low, high = max(float(stage.lo_tokens), shortest), float(stage.hi_tokens)
        colour = colormaps["viridis"](0.15 + 0.85 * number / max(count - 1, 1))
        ax.axvspan(low, high, color=colour, alpha=0.25, linewidth=0)
        instances = len(stage.instances)
        ax.text(
            np.sqrt(low * high),
            0.94 - 0.07 * (number % 2),
            f"{instances} instance{'s' * (instances != 1)}",
            transform=ax.get_xaxis_transform(),
            ha="center",
            fontsize=8,
        )
