"""Curves: linear between knots, constant before them, proportional after them."""

import pytest

from l4sim.cost.curve import Curve


def test_constant_then_linear_then_proportional() -> None:
    curve = Curve(sizes=(1000.0, 2000.0, 10_000.0), seconds=(5.0, 6.0, 14.0))
    assert curve.at([1, 1000, 1500, 6000, 20_000]).tolist() == pytest.approx([5, 5, 5.5, 10, 28])
