"""Fits: impossible points are flagged, a fifth is held out, few knots hold a curve."""

import numpy as np
import pytest

from l4sim.cost.fitting import beats_roofline, errors, held_out, thin
from l4sim.specs.gpu import GPUS

H200 = GPUS["h200-sxm"]


def test_a_point_faster_than_bandwidth_or_arithmetic_is_flagged() -> None:
    # 4.8e9 bytes take at least 1 ms, 989e9 operations likewise.
    seconds = [0.9e-3, 1.1e-3, 0.9e-3, 1.1e-3]
    size_bytes = [4.8e9, 4.8e9, 0, 0]
    flops = [0, 0, 989e9, 989e9]
    assert beats_roofline(seconds, size_bytes, flops, H200).tolist() == [True, False, True, False]


def test_a_seeded_fifth_is_held_out() -> None:
    assert held_out(100).sum() == 20
    assert np.array_equal(held_out(100, seed=1), held_out(100, seed=1))
    assert not np.array_equal(held_out(100, seed=1), held_out(100, seed=2))


def test_errors_by_hand() -> None:
    measured = np.array([1.0, 1.0, 1.0, 2.0])
    found = errors(np.array([1.1, 0.9, 1.0, 3.0]), measured, flagged=7)
    assert found.mape_pct == pytest.approx((10 + 10 + 0 + 50) / 4)
    assert found.median_pct == pytest.approx(10)
    assert found.worst_pct == pytest.approx(50)
    assert (found.points, found.flagged) == (4, 7)
    assert found.to_json()["mape_pct"] == 17.5


def test_a_straight_line_needs_its_ends_alone() -> None:
    x = np.arange(1.0, 50.0)
    assert thin(x, 3 * x + 2, 0.01).tolist() == [0, 48]


def test_a_bend_is_kept() -> None:
    x = np.arange(1.0, 21.0)
    assert thin(x, np.maximum(10.0, x), 0.01).tolist() == [0, 9, 19]


def test_kept_knots_hold_every_point_within_the_tolerance() -> None:
    x = np.geomspace(1, 1e6, 60)
    y = 5 + x**0.7
    knots = thin(x, y, 0.02)
    assert np.abs(np.interp(x, x[knots], y[knots]) / y - 1).max() <= 0.02
    assert len(knots) < 30
