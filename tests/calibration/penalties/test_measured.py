"""What unequal lengths cost as it was measured."""

from __future__ import annotations

from collections import Counter

import pytest

from l4sim.bundled import folder
from l4sim.calibration.penalties.measured import measured_penalties, within
from l4sim.cost.profile import load_profile


@pytest.fixture(scope="module")
def penalties():
    return measured_penalties(folder("profiles") / "h200-flashinfer", load_profile("h200-flashinfer"))


@pytest.mark.slow
def test_every_kernel_is_measured_with_every_pattern(penalties):
    counts = Counter((penalty.kernel, penalty.pattern) for penalty in penalties)
    assert len(counts) == 9
    assert min(counts.values()) > 100


@pytest.mark.slow
def test_the_split_predicts_what_is_measured(penalties):
    errors = [abs(penalty.predicted / penalty.measured - 1) for penalty in penalties]
    assert sum(errors) / len(errors) < 0.06


@pytest.mark.slow
def test_a_batch_is_compared_with_its_equal(penalties):
    # Lengths hardly matter to two requests, whatever the kernel: they are split over the whole GPU.
    assert all(0.8 < penalty.measured < 1.3 for penalty in within(penalties, 2, 3))


def test_requests_within_bounds_are_chosen(penalties):
    assert {penalty.requests for penalty in within(penalties, 33, 35)} == {33, 34, 35}
