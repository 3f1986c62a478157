"""Pictures of a comparison, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from l4sim.results.run import Run
from l4sim.results.write import unwritable


def draw_all(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Draw every picture that the runs have something for; return the files, in a fixed order.

    A picture with nothing to show is not drawn, and removed if an earlier call left one. The same runs give the same
    bytes. Raises InputError if ``out_dir`` cannot be made or written to.
    """
    import matplotlib as mpl

    from l4sim.results.plots.latency import latency_by_length, latency_cdf
    from l4sim.results.plots.load import heterogeneity, instance_heatmaps, queue_length
    from l4sim.results.plots.plan import plan_and_migrations
    from l4sim.results.plots.style import RC, save

    pictures = {
        "latency_cdf.png": latency_cdf,
        "latency_by_length.png": latency_by_length,
        "instances.png": instance_heatmaps,
        "queue.png": queue_length,
        "heterogeneity.png": heterogeneity,
        "plan.png": plan_and_migrations,
    }
    written = []
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(RC):
            for name, draw in pictures.items():
                figure = draw(runs)
                if figure is None:
                    (out_dir / name).unlink(missing_ok=True)
                else:
                    written.append(save(figure, out_dir / name))
    except OSError as error:
        raise unwritable(out_dir, error) from error
    return written
