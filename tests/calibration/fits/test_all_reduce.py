"""All-reduces are fitted to few knots, and links to what an all-reduce over them takes."""

import numpy as np
import pytest

from l4sim.calibration.fits.all_reduce import fit_all_reduce, fit_link, link_errors
from l4sim.cost.communication import AllReduceTable, over_link
from l4sim.cost.curve import OverBytes
from l4sim.specs.link import Link

SIZES = 2.0 ** np.arange(8, 31)


def test_a_curve_keeps_few_messages_and_is_near_all() -> None:
    seconds = 5e-6 + SIZES / 300e9
    curve, errors = fit_all_reduce(SIZES, seconds)
    assert len(curve.sizes) < len(SIZES) / 2
    assert np.abs(curve.at(SIZES) / seconds - 1).max() <= 0.03
    assert errors.points == len(SIZES) - 2


def test_errors_are_of_messages_that_the_curve_has_not_seen() -> None:
    """One that takes twice as long as all others misleads its neighbours, although the curve passes through it."""
    seconds = np.full(len(SIZES), 1e-5)
    seconds[10] = 2e-5
    curve, errors = fit_all_reduce(SIZES, seconds, flagged=3)
    assert curve.at(SIZES[10]) == pytest.approx(2e-5)
    assert (errors.worst_pct, errors.flagged) == (pytest.approx(200 / 3), 3)


@pytest.mark.parametrize("gpus", [2, 4])
def test_a_link_is_found_again_from_the_all_reduces_over_it(gpus: int) -> None:
    link = Link("slow", 10e9, 4e-6)
    seconds = over_link(gpus, link).captured.at(SIZES)
    table = AllReduceTable(gpus, "captured", "vLLM 0.24.0", "a card", True, OverBytes(tuple(SIZES), tuple(seconds)), {})
    found = fit_link("slow", table)
    assert (found.bytes_per_s, found.latency_s) == pytest.approx((link.bytes_per_s, link.latency_s), rel=1e-6)
    assert link_errors(link, table).worst_pct == pytest.approx(0, abs=1e-6)
