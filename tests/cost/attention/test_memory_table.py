"""Bandwidth against bytes."""

from __future__ import annotations

import pytest

from l4sim.cost.attention.memory import memory_table

RATES = {"dram_bytes_per_s": 4e12, "ramp_bytes_per_s": 2e12, "ramp_bytes": 100e6}


def test_dram_is_slower_over_the_first_bytes() -> None:
    table = memory_table(**RATES)
    assert table.at(50e6) == pytest.approx(25e-6)
    assert table.at(500e6) == pytest.approx(50e-6 + 100e-6)


def test_bytes_that_fit_come_from_l2_and_twice_as_many_push_each_other_out() -> None:
    table = memory_table(**RATES, cached_bytes=20e6, cached_bytes_per_s=8e12)
    assert table.at(20e6) == pytest.approx(2.5e-6)
    # 30 MB: 20 MB missed (10 µs), 10 MB found (1.25 µs); 40 MB: all missed.
    assert table.at(30e6) == pytest.approx(11.25e-6)
    assert table.at(40e6) == pytest.approx(20e-6)
    assert table.at(500e6) == pytest.approx(150e-6)


def test_more_bytes_never_take_less_time() -> None:
    table = memory_table(**RATES, cached_bytes=80e6, cached_bytes_per_s=8e12)
    seconds = [table.at(size * 1e6) for size in range(0, 400, 5)]
    assert seconds == sorted(seconds)
