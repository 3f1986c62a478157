"""All-reduces by number of GPUs."""

import pytest

from l4sim.cost.communication import all_reduce_of
from l4sim.cost.curve import Curve
from l4sim.errors import InputError

KNOTS = Curve(sizes=(1000.0, 2000.0), seconds=(5e-6, 6e-6))


def test_a_size_that_was_not_measured_is_refused() -> None:
    with pytest.raises(InputError, match=r"profile x: no all-reduce among 16 GPUs, .* 1, 2, 8"):
        all_reduce_of({2: KNOTS, 8: KNOTS}, 16, "x")
