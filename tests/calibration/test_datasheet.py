"""What is assumed of a GPU that was not measured."""

import pytest

from l4sim.calibration.datasheet import roofline_all_reduce


def test_a_ring_sends_each_part_twice() -> None:
    """Among 4 GPUs 3/2 of a GiB passes each link, among 2 GPUs once: of 450 GB/s a fraction is reached."""
    four, two = (float(roofline_all_reduce(450e9, gpus).at(2**30)) for gpus in (4, 2))
    assert four > 1.5 * 2**30 / 450e9
    assert four / two == pytest.approx(1.5, rel=0.01)


def test_the_assumed_ring_is_near_the_measured_one_on_pcie() -> None:
    """NCCL between two RTX PRO 6000 (LLMServingSim's hardware.yaml): 41.0 us for 1 MiB, 587 us for 20 MiB."""
    ring = roofline_all_reduce(64e9, 2)
    assert ring.at([2**20, 20 * 2**20]).tolist() == pytest.approx([41.0e-6, 587e-6], rel=0.04)
