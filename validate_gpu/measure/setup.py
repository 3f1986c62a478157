"""From a device and a model to a bench, a plan's target, and the figures to plan with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from l4sim.specs.model import Model
from validate_gpu.live.clock import seconds_of
from validate_gpu.live.device import check_idle, load_flashinfer
from validate_gpu.measure.attention_work import PAGE_TOKENS, AttentionWork
from validate_gpu.measure.bench import Timers, TorchBench
from validate_gpu.measure.estimate import CPU_SPEED, GPU_SPEED, Speed
from validate_gpu.measure.grids import CPU_GRID, GPU_GRID, Grid
from validate_gpu.measure.iteration_work import IterationWork
from validate_gpu.measure.kernels import FlashInferKernels, Kernels, TorchKernels, decode_kernels, prefill_kernels
from validate_gpu.measure.operator_work import OperatorWork
from validate_gpu.measure.plan import Target
from validate_gpu.measure.served import ServedTimer
from validate_gpu.measure.timing import GraphTimer, HostTimer, SlownessAfter, StreamTimer


@dataclass(frozen=True, slots=True)
class Scale:
    """The grid and the speed that a kind of device is measured with."""

    model: str
    """Which, if none is asked for."""
    grid: Grid
    speed: Speed
    dtype: torch.dtype
    kv_tokens: int
    """Room for one layer's keys and values: the largest batch."""
    iteration_tokens: int
    """Room for all layers' of whole iterations."""
    iteration_requests: int
    step_tokens: int
    """The most tokens of one iteration."""
    fit_s: float
    """What fitting takes at most."""


GPU_SCALE = Scale("llama-3.1-8b", GPU_GRID, GPU_SPEED, torch.bfloat16, (1 << 20) + (1 << 14), 140_000, 64, 8192, 60.0)
CPU_SCALE = Scale("tiny", CPU_GRID, CPU_SPEED, torch.float32, 40_000, 36_000, 32, 2304, 5.0)


def scale_of(device: torch.device) -> Scale:
    """That of a GPU or of a CPU."""
    return GPU_SCALE if device.type == "cuda" else CPU_SCALE


def set_up(
    device: torch.device, model: Model, scale: Scale, seed: int, slowness: SlownessAfter | None = None
) -> TorchBench:
    """Allocate and fill what all points share: a device ready to be measured.

    Raises:
        InputError: the GPU is busy, FlashInfer is missing or has no kernels for the model.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        free, total = torch.cuda.mem_get_info(device)
        check_idle(total - free - torch.cuda.memory_reserved(device), device)
    attention: Kernels = TorchKernels()
    if on_gpu:
        pages = scale.kv_tokens // PAGE_TOKENS
        attention = FlashInferKernels(load_flashinfer(), model, scale.dtype, device, pages)
    cold_bytes = scale.speed.cold_bytes
    return TorchBench(
        device,
        scale.dtype,
        timers(device, scale.speed.sample_s, slowness),
        AttentionWork(
            model, attention, device, scale.dtype, kv_tokens=scale.kv_tokens, cold_bytes=cold_bytes, seed=seed
        ),
        OperatorWork(device, scale.dtype, cold_bytes=cold_bytes, seed=seed),
        IterationWork(
            model,
            device,
            kv_tokens=scale.iteration_tokens,
            max_num_seqs=scale.iteration_requests,
            max_tokens=scale.step_tokens,
            seed=seed,
        ),
    )


def target_of(device: torch.device, model: Model, scale: Scale) -> tuple[Target, tuple[str, ...]]:
    """What to plan for, and why kernels of the device are left out.

    Raises:
        InputError: the device has no kernels for the model.
    """
    kernels, left_out = decode_kernels(model, device)
    target = Target(
        model=model,
        decode_kernels=kernels,
        prefill_kernels=prefill_kernels(device),
        mixed_kernel=kernels[0][0],
        kv_tokens=scale.kv_tokens,
        item_bytes=scale.dtype.itemsize,
        gpus=torch.cuda.device_count() if device.type == "cuda" else 0,
    )
    return target, left_out


def timers(device: torch.device, sample_s: float, slowness: SlownessAfter | None = None) -> Timers:
    """A CPU has only the host's clock, and perhaps a ``slowness`` to divide seconds by."""
    if device.type == "cpu":
        host = HostTimer(_nothing, sample_s, seconds_of(device), slowness)
        return Timers(host, host, host, ServedTimer(sample_s, seconds_of(device), slowness))
    return Timers(
        GraphTimer(device, sample_s),
        StreamTimer(device, sample_s),
        HostTimer(_synchronize_all, sample_s),
        ServedTimer(sample_s, seconds_of(device)),
    )


def _synchronize_all() -> None:
    for number in range(torch.cuda.device_count()):
        torch.cuda.synchronize(number)


def _nothing() -> None:
    """A CPU is done when a call returns."""
