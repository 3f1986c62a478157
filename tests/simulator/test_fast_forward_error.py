"""Skipping over iterations: exact for affine costs, and within stated bounds (docs/simulator.md) for `tile`."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.fast_forward import Difference, difference
from l4sim.bundled import folder
from l4sim.workload.load import load_trace

pytestmark = pytest.mark.slow


def of_the_bundled_trace(cost_model: str) -> Difference:
    # Round-robin places requests whatever their times: what differs is the interpolation's doing alone.
    trace = load_trace(folder("traces") / "long-context-mix.jsonl.gz", limit=100)
    return difference(trace, "round-robin", instances=2, cost_model=cost_model)


def test_affine_costs_are_exact_to_rounding() -> None:
    found = of_the_bundled_trace("affine")
    assert found.segments < found.iterations / 10
    assert found.finish_s.max() < 1e-9


def test_the_kernels_own_splits_are_within_the_stated_bounds() -> None:
    found = of_the_bundled_trace("tile")
    assert found.segments < found.iterations / 10
    assert found.placed_alike == 1
    assert 0 < np.median(found.share) < 1e-3
    assert found.share.max() < 0.02
    assert abs(found.mean_e2e) < 1e-3
