"""All-reduces: linear between knots, fitted to few of them, in bytes rather than elements."""

from pathlib import Path

import pytest

from l4sim.cost.communication import AllReduce, all_reduce_of, fit_all_reduce, roofline_all_reduce
from l4sim.errors import InputError

KNOTS = AllReduce(size_bytes=(1000.0, 2000.0, 10_000.0), seconds=(5e-6, 6e-6, 14e-6))


def test_latency_below_the_first_knot_and_rate_beyond_the_last() -> None:
    assert KNOTS.all_reduce_s([1, 1000, 1500, 6000, 20_000]).tolist() == pytest.approx(
        [5e-6, 5e-6, 5.5e-6, 10e-6, 28e-6]
    )


def test_a_ring_sends_each_part_twice() -> None:
    # Among 4 GPUs 3/2 of a GiB passes each link: 3.58 ms at 450 GB/s.
    ring = roofline_all_reduce(450e9, latency_s=0.0, gpus=4)
    assert float(ring.all_reduce_s(2**30)) == pytest.approx(1.5 * 2**30 / 450e9)


def test_a_size_that_was_not_measured_is_refused() -> None:
    with pytest.raises(InputError, match=r"profile x: no all-reduce among 16 GPUs, .* 1, 2, 8"):
        all_reduce_of({2: KNOTS, 8: KNOTS}, 16, "x")


def test_few_knots_hold_the_measured_table(measurements: Path) -> None:
    tables, errors = fit_all_reduce(measurements / "aic_h200_sxm_vllm0.24_allreduce.csv.gz")
    assert set(tables) == {2, 4, 8}
    assert errors.worst_pct <= 3
    assert all(len(table.size_bytes) <= 12 for table in tables.values())


def test_message_sizes_are_bf16_elements(measurements: Path) -> None:
    """The custom all-reduce ends below 8 MiB, where time doubles: at 4 Mi elements, not at 8 Mi.

    And NVLink's 450 GB/s bound the ring: 1 GiB among 2 GPUs cannot take less than 2.4 ms.
    """
    tables, _ = fit_all_reduce(measurements / "aic_h200_sxm_vllm0.24_allreduce.csv.gz")
    below, at = tables[2].all_reduce_s([4 * 2**20, 8 * 2**20])
    assert at > 1.9 * below
    rate = 2**30 / float(tables[2].all_reduce_s(2**30))
    assert 300e9 < rate < 450e9
