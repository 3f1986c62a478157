"""A device's slowness, by readings of its own; and the iteration that reads a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from l4sim.calibration.measured.folder import Measured
from l4sim.cost.profile import Provenance
from l4sim.specs.gpu import GPUS
from validate_gpu.measure.speed import Slowness, reference_iteration, reference_speed, slowness_of
from validate_gpu.measure.store import Store

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


def test_a_folders_reference_speed_is_the_one_that_it_was_begun_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = reads(*(1.0,) * 25, 3.0, *(5.0,) * 25)
    monkeypatch.setattr("validate_gpu.measure.speed.reference_iteration", lambda device: lambda: next(left))
    # The median of many readings.
    assert reference_speed(CPU, tmp_path) == 3.0
    provenance = Provenance(None, "a test", "Apache-2.0", None, None, None, None, None)
    Store(tmp_path, Measured("folder", GPUS["h200-sxm"], provenance, "torch-cpu", reference_s=2e-3))
    assert reference_speed(CPU, tmp_path) == 2e-3


def test_a_cpu_is_read_by_running_something_on_it() -> None:
    read = reference_iteration(CPU)
    assert read is not None
    assert all(0 < read() < 10 for _ in range(3))
    slowness = slowness_of(CPU, read())
    assert slowness is not None
    assert 0.01 < slowness(1.0) < 100


def test_a_gpus_speed_is_its_own_and_without_a_reference_there_is_no_slowness() -> None:
    assert reference_iteration(GPU) is None
    assert reference_speed(GPU, Path("nowhere")) is None
    assert slowness_of(GPU, 1e-3) is None
    assert slowness_of(CPU, None) is None
