"""All-reduces: linear between knots, fitted to few of them, in bytes rather than elements."""

from pathlib import Path

import pytest

from l4sim.cost.communication import all_reduce_of, fit_all_reduce, roofline_all_reduce
from l4sim.cost.curve import Curve
from l4sim.errors import InputError

KNOTS = Curve(sizes=(1000.0, 2000.0), seconds=(5e-6, 6e-6))


def test_a_ring_sends_each_part_twice() -> None:
    """Among 4 GPUs 3/2 of a GiB passes each link, among 2 GPUs once: of 450 GB/s a fraction is reached."""
    four, two = (float(roofline_all_reduce(450e9, gpus).at(2**30)) for gpus in (4, 2))
    assert four > 1.5 * 2**30 / 450e9
    assert four / two == pytest.approx(1.5, rel=0.01)


def test_the_assumed_ring_is_near_the_measured_one_on_pcie() -> None:
    """NCCL between two RTX PRO 6000 (LLMServingSim's hardware.yaml): 41.0 us for 1 MiB, 587 us for 20 MiB."""
    ring = roofline_all_reduce(64e9, 2)
    assert ring.at([2**20, 20 * 2**20]).tolist() == pytest.approx([41.0e-6, 587e-6], rel=0.04)


def test_a_size_that_was_not_measured_is_refused() -> None:
    with pytest.raises(InputError, match=r"profile x: no all-reduce among 16 GPUs, .* 1, 2, 8"):
        all_reduce_of({2: KNOTS, 8: KNOTS}, 16, "x")


def test_few_knots_hold_the_measured_table(measurements: Path) -> None:
    tables, errors = fit_all_reduce(measurements / "aic_h200_sxm_vllm0.24_allreduce.csv.gz")
    assert set(tables) == {2, 4, 8}
    assert errors.worst_pct <= 3
    assert all(len(table.sizes) <= 12 for table in tables.values())


def test_message_sizes_are_bf16_elements(measurements: Path) -> None:
    """The custom all-reduce ends below 8 MiB, where time doubles: at 4 Mi elements, not at 8 Mi.

    And NVLink's 450 GB/s bound the ring: 1 GiB among 2 GPUs cannot take less than 2.4 ms.
    """
    tables, _ = fit_all_reduce(measurements / "aic_h200_sxm_vllm0.24_allreduce.csv.gz")
    below, at = tables[2].at([4 * 2**20, 8 * 2**20])
    assert at > 1.9 * below
    rate = 2**30 / float(tables[2].at(2**30))
    assert 300e9 < rate < 450e9
