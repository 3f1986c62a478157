"""The device that is measured: its datasheet, the versions of driver and libraries, its clock while it runs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from l4sim.cost.profile import Provenance
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU, GPUS, load_gpu

# How PyTorch names the bundled GPUs.
_NAMES = {
    "NVIDIA H200": "h200-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H20": "h20-141gb",
    "NVIDIA H800": "h800",
    "NVIDIA A100-SXM4-80GB": "a100-80gb-sxm",
    "NVIDIA A800-SXM4-80GB": "a800",
    "NVIDIA L40": "l40-48gb",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
}
_CLOCK_INTERVAL_MS = 100
_CPU_CLOCKS = Path("/proc/cpuinfo")


def describe_gpu(device: torch.device, name: str | None) -> GPU:
    """The device as a profile's GPU: a bundled datasheet (``name`` overrides which), corrected by what the driver says.

    A CPU's peaks are a little above what products with a matrix and a vector reach: only fractions of them are fitted.

    Raises:
        InputError: a GPU that no datasheet is bundled for.
    """
    if device.type == "cpu":
        return _describe_cpu()
    properties = torch.cuda.get_device_properties(device)
    known = name or known_gpu(device)
    if known is None:
        raise InputError(f"no datasheet is bundled for {properties.name}: name the nearest by --gpu, {', '.join(GPUS)}")
    return replace(
        load_gpu(known),
        sms=properties.multi_processor_count,
        memory_bytes=properties.total_memory,
        l2_bytes=properties.L2_cache_size,
    )


def known_gpu(device: torch.device) -> str | None:
    """The bundled datasheet of a GPU by the name that PyTorch has for it; None if there is none."""
    return _NAMES.get(torch.cuda.get_device_name(device))


def provenance(device: torch.device, date: str) -> Provenance:
    """Where points measured now come from: clocks, driver and versions; None for what cannot be found out."""
    on_gpu = device.type == "cuda"
    driver, clock = _nvidia_smi(device, "driver_version", "clocks.max.sm") if on_gpu else (None, None)
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()
    return Provenance(
        date=date,
        source=f"ours: l4sim profile measure on {name}",
        licence="Apache-2.0",
        gpu_clock=f"{clock} MHz at most; each point has its own" if clock else None,
        driver=driver,
        cuda=torch.version.cuda,
        torch=torch.__version__,
        kernels=f"FlashInfer {importlib.metadata.version('flashinfer-python')}" if on_gpu else "PyTorch",
    )


class Clock:
    """The device's clock while it is measured, read ten times a second; a context manager."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process: subprocess.Popen[str] | None = None
        self._mhz = 0.0
        self._stale_s = 0.0

    def __enter__(self) -> Clock:
        """Have ``nvidia-smi`` report a GPU's clock ten times a second."""
        if self._device.type == "cuda":
            command = ["nvidia-smi", f"--id={self._device.index or 0}", "--query-gpu=clocks.sm"]
            command += ["--format=csv,noheader,nounits", f"--loop-ms={_CLOCK_INTERVAL_MS}"]
            try:
                self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            except OSError:
                return self
            self._listener = threading.Thread(target=self._listen, args=(self._process.stdout or (),), daemon=True)
            self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        if self._process is not None:
            self._process.terminate()
            self._listener.join()
            # Closes its pipe, and waits for its end.
            self._process.communicate()

    @property
    def mhz(self) -> float:
        """The latest reading; 0 if there is none."""
        # Asked after every iteration: reading a CPU's each time would cool its caches, and slow the next one by 4 %.
        if self._device.type == "cpu" and time.monotonic() >= self._stale_s:
            self._mhz = _cpu_mhz()
            self._stale_s = time.monotonic() + _CLOCK_INTERVAL_MS / 1000
        return self._mhz

    def _listen(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip().isdecimal():
                self._mhz = float(line)


def _cpu_mhz() -> float:
    lines = _CPU_CLOCKS.read_text().splitlines() if _CPU_CLOCKS.is_file() else []
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(clocks) / len(clocks) if clocks else 0.0


def _nvidia_smi(device: torch.device, *fields: str) -> tuple[str | None, ...]:
    command = ["nvidia-smi", f"--id={device.index or 0}", f"--query-gpu={','.join(fields)}"]
    command.append("--format=csv,noheader,nounits")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (None,) * len(fields)
    return tuple(text.strip() for text in answer.split(","))


def _describe_cpu() -> GPU:
    threads, side = torch.get_num_threads(), 512
    square, row = torch.randn(side, side), torch.randn(1, side)
    product_s = _best_s(lambda: square @ square)
    stream_s = _best_s(lambda: row @ square)
    # In elements of two bytes, as all cost models count.
    return GPU(
        name="cpu",
        sms=threads,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_bytes_per_s=1.5 * 2 * side**2 / stream_s,
        bf16_flops=1.25 * 2 * side**3 / product_s,
        l2_bytes=1 << 20,
        link_bytes_per_s=1e10,
        source=f"{platform.processor() or platform.machine()}, {threads} threads; 1.25 times the arithmetic and 1.5 "
        f"times the bandwidth that products of side {side} reach, float32 counted as two bytes",
    )


def _best_s(run: Callable[[], Any], repeats: int = 20) -> float:
    taken = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start_s)
    return min(taken)
