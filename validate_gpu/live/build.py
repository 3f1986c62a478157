"""From options to engines that are ready to be timed: checked, captured and warm."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.specs.model import Model
from validate_gpu.live.check import check_attention
from validate_gpu.live.device import check_room, failures_of, load_flashinfer, open_device
from validate_gpu.live.elementwise import elementwise_on
from validate_gpu.live.engine import DeviceEngine, flashinfer_kernels, torch_kernels
from validate_gpu.live.flashinfer_attention import PATHS, check_supported
from validate_gpu.live.inputs import PageTable, StepInputs, indptr
from validate_gpu.live.model import Transformer
from validate_gpu.live.sequences import Sequences

ATTENTIONS = ("auto", "torch", *PATHS)


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What a live run needs besides a simulated one's options."""

    device: str = "auto"
    attention: str = "auto"
    """One of `ATTENTIONS`; auto: FlashInfer's tensor-core path on a GPU, PyTorch on a CPU."""
    cuda_graphs: bool = True
    """Capture decode steps (on a GPU)."""
    seed: int = 0
    threads: int = 1
    """Of a CPU, per process."""
    shared: bool = False
    """Other processes of the run use the device too."""


def build_engine(
    model: Model, config: EngineConfig, instances: int, options: LiveOptions, sequences: Sequences
) -> DeviceEngine:
    """One device's engine for a number of instances; nothing is compiled, captured or allocated after this.

    Raises:
        InputError: no such device or attention, the device is busy or too small, FlashInfer or a kernel is missing.
        ExecutionError: the attention kernel does not compute what the reference does, or the device fails.
    """
    device = open_device(options.device)
    on_gpu = device.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(options.threads)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    attention = attention_on(device, options.attention)
    if attention != "torch":
        check_supported(model, attention)
    check_room(model, config, instances, device, dtype, shared=options.shared)
    with failures_of(f"{device} is not ready for {model.name}"):
        return _build(model, config, instances, options, attention, device, dtype, sequences)


def attention_on(device: torch.device, attention: str) -> str:
    """The attention that a device runs, of `ATTENTIONS` but ``auto``.

    Raises:
        InputError: no such attention, or not on this device.
    """
    if attention not in ATTENTIONS:
        raise InputError(f"no attention '{attention}': accepted are {', '.join(ATTENTIONS)}")
    if attention == "auto":
        return PATHS[0] if device.type == "cuda" else "torch"
    if attention != "torch" and device.type != "cuda":
        raise InputError(f"--attention {attention} needs a GPU: accepted on {device} is torch")
    return attention


def _build(
    model: Model,
    config: EngineConfig,
    instances: int,
    options: LiveOptions,
    attention: str,
    device: torch.device,
    dtype: torch.dtype,
    sequences: Sequences,
) -> DeviceEngine:
    kernels = torch_kernels()
    if attention != "torch":
        kernels = flashinfer_kernels(
            load_flashinfer(), model, config, device, dtype, path=attention, graphs=options.cuda_graphs
        )
        check_attention(kernels.attention, model, config.block_tokens, device, dtype)
    transformer = Transformer(
        model,
        max_model_len=config.max_model_len,
        seed=options.seed,
        device=device,
        dtype=dtype,
        elementwise=elementwise_on(device),
    )
    engine = DeviceEngine(transformer, config, instances, kernels, sequences)
    for inputs in warm_up_steps(config):
        engine.logits(inputs)
    engine.synchronize()
    return engine


def warm_up_steps(config: EngineConfig) -> Sequence[StepInputs]:
    """The largest prompt chunk and the largest decode batch that fit one instance's memory."""
    size = config.block_tokens
    prompt = min(config.max_num_batched_tokens, config.kv_blocks * size, config.max_model_len)
    decodes = min(config.max_num_seqs, config.kv_blocks)
    return (_step([prompt], [-(-prompt // size)], size, decodes=0), _step([1] * decodes, [1] * decodes, size, decodes))


def _step(tokens: list[int], pages: list[int], page_tokens: int, decodes: int) -> StepInputs:
    """Requests that compute all of their context, on pages from 0 on."""
    page_indptr = indptr(pages)
    positions = [np.arange(count) for count in tokens]
    table = PageTable(
        decodes, indptr(tokens), page_indptr, np.arange(sum(pages), dtype=np.int32), np.array(tokens, "i4"), page_tokens
    )
    slots = [first * page_tokens + at for first, at in zip(page_indptr[:-1].astype(np.int64), positions, strict=True)]
    rows = table.query_indptr[1:].astype(np.int64) - 1
    samplers = tuple((number, 0) for number in range(len(tokens)))
    token_ids = np.zeros(sum(tokens), dtype=np.int64)
    return StepInputs(token_ids, np.concatenate(positions), np.concatenate(slots), rows, samplers, table)


def describe_device(device: torch.device) -> dict[str, Any]:
    """What a live run ran on; a GPU's clocks and driver as `nvidia-smi` tells them, None without it."""
    described: dict[str, Any] = {"device": str(device), "torch": torch.__version__}
    if device.type != "cuda":
        return {**described, "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    return {**described, "name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, **_clocks(device)}


def _clocks(device: torch.device) -> dict[str, str | None]:
    fields = ("driver_version", "clocks.sm", "clocks.mem", "power.draw")
    command = ["nvidia-smi", f"--id={device.index}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return dict.fromkeys(fields)
    return dict(zip(fields, answer.split(", "), strict=True))
