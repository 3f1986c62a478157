"""Fits: impossible points are flagged, a fifth is held out."""

import numpy as np
import pytest

from l4sim.calibration.fits.errors import beats_roofline, errors, held_out, held_out_fifth
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


def test_a_fifth_is_held_out_of_every_five_neighbours() -> None:
    keys = np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20)
    mask = held_out_fifth(keys)
    assert mask.reshape(20, 5).sum(axis=1).tolist() == [1] * 20
    assert not np.array_equal(mask, held_out_fifth(keys, seed=1))
    assert np.array_equal(mask, held_out_fifth(keys))


def test_errors_by_hand() -> None:
    measured = np.array([1.0, 1.0, 1.0, 2.0])
    found = errors(np.array([1.1, 0.9, 1.0, 3.0]), measured, flagged=7)
    assert found.mape_pct == pytest.approx((10 + 10 + 0 + 50) / 4)
    assert found.median_pct == pytest.approx(10)
    assert found.worst_pct == pytest.approx(50)
    assert (found.points, found.flagged) == (4, 7)
    assert found.to_json()["mape_pct"] == 17.5
