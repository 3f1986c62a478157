"""Curves: linear between knots, constant before them, proportional after them."""

import numpy as np
import pytest

from l4sim.cost.curve import Curve, thinned_curve


def test_constant_then_linear_then_proportional() -> None:
    curve = Curve(sizes=(1000.0, 2000.0, 10_000.0), seconds=(5.0, 6.0, 14.0))
    assert curve.at([1, 1000, 1500, 6000, 20_000]).tolist() == pytest.approx([5, 5, 5.5, 10, 28])


def test_thinning_keeps_what_bends() -> None:
    sizes = np.arange(1.0, 21.0)
    curve = thinned_curve(sizes, np.maximum(10.0, sizes), tolerance=0.01)
    assert curve == Curve(sizes=(1.0, 10.0, 20.0), seconds=(10.0, 10.0, 20.0))
