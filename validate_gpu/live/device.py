"""The device of a live run: which it is, whether it is free, and whether the run fits it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.runtime.executor import ExecutionError
from l4sim.specs.memory import non_kv_bytes
from l4sim.specs.model import Model, uniform_layers

_GIB = 2**30
# What a display or a driver keeps; another process that computes holds more.
_BUSY_BYTES = 2 * _GIB


def open_device(name: str) -> torch.device:
    """A device by name: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is the first GPU if there is one, else the CPU.

    Raises:
        InputError: no such device here.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        name = "cuda:0" if gpus else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise InputError(f"no device '{name}': accepted are auto, cpu, cuda and cuda:N")
    if int(number or 0) >= gpus:
        there = f"there are {gpus} GPUs" if gpus else "no GPU is visible"
        raise InputError(f"--device {name}: {there}; --device cpu --model tiny runs the same code without one")
    return torch.device("cuda", int(number or 0))


def load_flashinfer() -> ModuleType:
    """FlashInfer, imported when a GPU is to run it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("flashinfer")
    except ImportError as error:
        raise InputError(
            f"FlashInfer cannot be imported ({error}): install l4sim[gpu], or use --attention torch or --device cpu"
        ) from error


@contextmanager
def failures_of(what: str) -> Iterator[None]:
    """Tell a device's failure in one line.

    Raises:
        ExecutionError: what failed, and how.
    """
    try:
        yield
    except RuntimeError as error:
        # PyTorch's out of memory and CUDA's errors are of this kind, and FlashInfer's.
        first_line = str(error).partition("\n")[0]
        raise ExecutionError(f"{what}: {first_line}") from error


def check_room(
    model: Model,
    config: EngineConfig,
    instances: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    shared: bool = False,
) -> None:
    """Check that a GPU is free (unless it is to be shared), and that weights, activations and all KV fit the device.

    Raises:
        InputError: someone else uses it, or how much is missing and how many KV blocks would fit.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if not shared:
            check_idle(total - free - torch.cuda.memory_reserved(device), device)
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    check_fits(model, config, instances, free, dtype.itemsize, device)


def check_idle(others_bytes: int, device: torch.device) -> None:
    """Check that other processes hold next to nothing of a GPU.

    Raises:
        InputError: they hold more.
    """
    if others_bytes > _BUSY_BYTES:
        raise InputError(
            f"{device} is busy: other processes hold {others_bytes / _GIB:.1f} GiB of it, and times measured now would "
            "not be the run's own; accepted is an idle GPU"
        )


def check_fits(
    model: Model, config: EngineConfig, instances: int, free_bytes: int, item_bytes: int, device: torch.device
) -> None:
    """Check that weights, activations and the KV of ``instances`` instances fit ``free_bytes``.

    Raises:
        InputError: they do not, and how many KV blocks per instance would.
    """
    weights = model.parameters * item_bytes
    others = non_kv_bytes(model, max_num_batched_tokens=config.max_num_batched_tokens, max_num_seqs=config.max_num_seqs)
    # Rotary embedding, and the gather buffers of migrations.
    layers = uniform_layers(model)
    tables = config.max_model_len * layers.attention.head_dim * 4 + _GIB
    block = layers.count * layers.attention.kv_elements * config.block_tokens * item_bytes
    most = int((free_bytes - weights - others - tables) / (block * instances))
    if config.kv_blocks > most:
        where = "the CPU (no GPU was asked for, or none is visible)" if device.type == "cpu" else str(device)
        accepted = f"--kv-blocks {most} or fewer" if most > 0 else "a smaller model, such as --model tiny"
        raise InputError(
            f"{instances} instances of {config.kv_blocks} KV blocks each and {model.name}'s weights do not fit the "
            f"{free_bytes / _GIB:.1f} GiB free on {where}: accepted is {accepted}"
        )
