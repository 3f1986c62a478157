"""What a profile says of its device: from the driver, from ``nvidia-smi``, and from the processor."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from l4sim.errors import InputError
from validate_gpu.measure.describe import Clock, describe_gpu, provenance

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def on_gpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    properties = SimpleNamespace(name=name, multi_processor_count=114, total_memory=10**11, L2_cache_size=5 * 10**7)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)


def nvidia_smi(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_datasheet_is_found_by_name_and_corrected_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, "NVIDIA H200")
    gpu = describe_gpu(GPU, None)
    assert (gpu.name, gpu.memory_bytes_per_s, gpu.bf16_flops) == ("h200-sxm", 4.8e12, 989e12)
    assert (gpu.sms, gpu.memory_bytes, gpu.l2_bytes) == (114, 10**11, 5 * 10**7)


def test_a_gpu_without_a_datasheet_is_refused_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, "NVIDIA T4")
    with pytest.raises(InputError, match=r"no datasheet is bundled for NVIDIA T4: name the nearest by --gpu, h200-sxm"):
        describe_gpu(GPU, None)
    assert describe_gpu(GPU, "l40-48gb").name == "l40-48gb"


def test_a_cpus_peaks_are_above_what_it_reaches() -> None:
    gpu = describe_gpu(CPU, None)
    assert (gpu.name, gpu.sms) == ("cpu", torch.get_num_threads())
    assert 1e8 < gpu.memory_bytes_per_s < 1e13
    assert 1e9 < gpu.bf16_flops < 1e14


def test_driver_and_clocks_are_told_by_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_gpu(monkeypatch, "NVIDIA H200")
    nvidia_smi(
        monkeypatch, tmp_path, 'test "$2" = "--query-gpu=driver_version,clocks.max.sm" && echo "580.95.05, 1980"'
    )
    monkeypatch.setattr("importlib.metadata.version", lambda package: {"flashinfer-python": "0.6.8.post1"}[package])
    told = provenance(GPU, "2026-01-01")
    assert (told.date, told.driver, told.gpu_clock) == (
        "2026-01-01",
        "580.95.05",
        "1980 MHz at most; each point has its own",
    )
    assert told.kernels == "FlashInfer 0.6.8.post1"
    assert told.source == "ours: l4sim profile measure on NVIDIA H200"


def test_what_nvidia_smi_does_not_tell_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_gpu(monkeypatch, "NVIDIA H200")
    nvidia_smi(monkeypatch, tmp_path, "exit 9")
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.6.8")
    told = provenance(GPU, "2026-01-01")
    assert (told.driver, told.gpu_clock) == (None, None)


def test_the_clock_of_a_gpu_is_followed_while_it_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvidia_smi(monkeypatch, tmp_path, "echo '[N/A]'; echo 1755; echo 1980; exec sleep 60")
    with Clock(GPU) as clock:
        deadline = time.monotonic() + 5
        while clock.mhz != 1980 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert clock.mhz == 1980


def test_a_gpu_without_nvidia_smi_has_no_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Clock(GPU) as clock:
        assert clock.mhz == 0


def test_a_cpus_clock_is_the_mean_of_its_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("cpu MHz\t\t: 2000.0\ncache size: 9\ncpu MHz\t\t: 3000.0\n")
    monkeypatch.setattr("validate_gpu.measure.describe._CPU_CLOCKS", told)
    with Clock(CPU) as clock:
        assert clock.mhz == 2500


def test_a_cpus_clock_is_read_ten_times_a_second_however_often_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told, now_s = tmp_path / "cpuinfo", [5.0]
    monkeypatch.setattr("validate_gpu.measure.describe._CPU_CLOCKS", told)
    monkeypatch.setattr("validate_gpu.measure.describe.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    found = []
    with Clock(CPU) as clock:
        for mhz, at_s in ((2000, 5.0), (2100, 5.09), (2200, 5.11)):
            told.write_text(f"cpu MHz : {mhz}\n")
            now_s[0] = at_s
            found.append(clock.mhz)
    assert found == [2000, 2000, 2200]
