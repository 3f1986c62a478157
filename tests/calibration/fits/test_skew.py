"""The constant of the ``skew`` model: fitted to batches, or to a kernel's own split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from l4sim.calibration.fits.skew import best_alpha, skew_alpha
from l4sim.cost.model import AttentionModel

Build = Callable[..., AttentionModel]


def test_best_alpha_is_the_median_slope_weighted_by_span() -> None:
    # Spans 1, 3 and 1, slopes 0.9, 0.3 and 0.1: half of the weight, 2.5, lies at 0.3.
    longest = np.array([2.0, 4.0, 2.0])
    assert best_alpha(np.ones(3), longest, np.array([1.9, 1.9, 1.1])) == pytest.approx(0.3)
    assert best_alpha(np.ones(3), longest, np.array([0.9, 0.8, 0.9])) == 0.0
    assert best_alpha(np.ones(2), np.ones(2), np.ones(2)) == 0.0


def test_no_other_constant_has_a_smaller_absolute_error() -> None:
    rng = np.random.default_rng(0)
    longest, seconds = 1 + rng.uniform(0, 4, 50), 1 + rng.uniform(0, 1, 50)
    best = best_alpha(np.ones(50), longest, seconds)
    misses = [np.abs(1 + alpha * (longest - 1) - seconds).mean() for alpha in (best, *np.linspace(0, 1, 101))]
    assert misses[0] == pytest.approx(min(misses))


def test_alpha_tells_kernels_that_split_unevenly(attention: Build) -> None:
    assert skew_alpha(attention("fa3")) < 0.05 < skew_alpha(attention("flashinfer-tensor")) < 1.0
