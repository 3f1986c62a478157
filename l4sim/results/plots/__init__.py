"""Pictures of a comparison, as PNG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from l4sim.results.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure | None]]:
    """Every picture by its name, None where the runs have nothing for it."""
    import matplotlib as mpl

    from l4sim.results.plots.latency import latency_by_length, latency_cdf
    from l4sim.results.plots.load import heterogeneity, instance_heatmaps, queue_length
    from l4sim.results.plots.plan import plan_and_migrations
    from l4sim.results.plots.style import RC

    pictures = {
        "latency_cdf": latency_cdf,
        "latency_by_length": latency_by_length,
        "instances": instance_heatmaps,
        "queue": queue_length,
        "heterogeneity": heterogeneity,
        "plan": plan_and_migrations,
    }
    for name, draw in pictures.items():
        with mpl.rc_context(RC):
            figure = draw(runs)
        yield name, figure


def draw_all(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Draw every picture that the runs have something for; return the files, in a fixed order.

    A picture with nothing to show is not drawn, and removed if an earlier call left one. Raises like `save_all`.
    """
    from l4sim.results.plots.style import save_all

    return save_all(figures(runs), out_dir)
