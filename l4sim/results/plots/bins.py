"""Segments of iterations as means over equal bins of time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from l4sim.results.run import Run

FloatArray = NDArray[np.float64]


def time_edges_s(runs: Sequence[Run], bins: int) -> FloatArray:
    """The edges of equal bins from 0 to the last segment's end of all runs, shape ``[bins + 1]``, seconds."""
    return np.linspace(0.0, max(run.iterations["end_s"].max() for run in runs if len(run.iterations)), bins + 1)


def binned_means(run: Run, values: NDArray[np.generic], edges_s: FloatArray) -> FloatArray:
    """The time-weighted mean of a value per segment, shape ``[instances, bins]``; time without a segment counts as 0.

    ``values`` has one entry per row of ``run.iterations``; ``edges_s`` are equidistant and span all segments.
    """
    bins = len(edges_s) - 1
    width_s = edges_s[1] - edges_s[0]
    start_s, end_s = run.iterations["start_s"].to_numpy(), run.iterations["end_s"].to_numpy()
    first = np.clip(np.searchsorted(edges_s, start_s, side="right") - 1, 0, bins - 1)
    last = np.clip(np.searchsorted(edges_s, end_s, side="right") - 1, 0, bins - 1)
    values = values.astype(np.float64)
    instance_row = run.iterations["instance"].to_numpy() * (bins + 1)
    size = run.instance_count * (bins + 1)

    def scatter(bin_index: NDArray[np.int64], amount: FloatArray) -> FloatArray:
        return np.bincount(instance_row + bin_index, amount, size).reshape(-1, bins + 1).astype(np.float64)

    # A segment adds its first bin's rest, all of the bins behind it, and takes back what its last bin has too much.
    whole = np.cumsum(scatter(first + 1, values * width_s) - scatter(last + 1, values * width_s), axis=1)
    ends = scatter(first, values * (edges_s[first + 1] - start_s)) - scatter(last, values * (edges_s[last + 1] - end_s))
    means: FloatArray = (whole + ends)[:, :bins] / width_s
    return means
