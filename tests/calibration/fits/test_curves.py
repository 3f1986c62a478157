"""Few knots hold a measured curve."""

import numpy as np

from l4sim.calibration.fits.curves import thin, thinned_curve
from l4sim.cost.curve import Curve


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


def test_thinning_keeps_what_bends() -> None:
    sizes = np.arange(1.0, 21.0)
    curve = thinned_curve(Curve, sizes, np.maximum(10.0, sizes), tolerance=0.01)
    assert curve == Curve(sizes=(1.0, 10.0, 20.0), seconds=(10.0, 10.0, 20.0))
