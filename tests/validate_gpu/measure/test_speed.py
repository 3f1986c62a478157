"""A device's slowness, by readings of its own; and the iteration that reads a real one."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from validate_gpu.measure.speed import Slowness, reference_iteration, settled, slowness_of

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def reads(*seconds: float) -> Iterator[float]:
    yield from seconds


def test_it_is_read_anew_after_10_ms_of_work() -> None:
    left = reads(2.0, 6.0, 4.0)
    slowness = Slowness(lambda: next(left), reference_s=2.0)
    assert [slowness.after(0.004) for _ in range(2)] == [1.0, 1.0]
    # While the last 4 ms passed it went from 1 to 3.
    assert slowness.after(0.004) == 2.0
    assert slowness.after(0.004) == 3.0
    assert slowness.after(float("inf")) == 2.5
    assert slowness.after(0.0) == 2.0


def test_a_reference_speed_is_the_median_of_many_readings() -> None:
    left = reads(*(1.0,) * 25, 3.0, *(5.0,) * 25)
    assert settled(lambda: next(left)) == 3.0


def test_a_cpu_is_read_by_running_something_on_it() -> None:
    read = reference_iteration(CPU)
    assert read is not None
    assert all(0 < read() < 10 for _ in range(3))
    slowness = slowness_of(CPU, read())
    assert slowness is not None
    assert 0.01 < slowness(1.0) < 100


def test_a_gpus_speed_is_its_own_and_without_a_reference_there_is_no_slowness() -> None:
    assert reference_iteration(GPU) is None
    assert slowness_of(GPU, 1e-3) is None
    assert slowness_of(CPU, None) is None
