"""The attention kernels that can be measured, as the live engine calls them."""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import torch

from l4sim.calibration.points.batches import PREFILL_KERNEL
from l4sim.cost.attention.flashinfer import BATCH, CUDA_CORE, TENSOR_CORE
from l4sim.cost.attention.torch_cpu import TORCH_CPU
from l4sim.errors import InputError
from l4sim.specs.model import Model
from validate_gpu.live.attention import Attention, TorchAttention
from validate_gpu.live.flashinfer_attention import (
    KERNELS,
    FlashInferAttention,
    FlashInferBatchAttention,
    GraphDecodeAttention,
    Workspace,
    check_supported,
)
from validate_gpu.measure.points import AttentionPoint

_PATHS = {kernel: path for path, kernel in KERNELS.items()}


class Kernels(Protocol):
    """Attention by a point's kernel."""

    def attention(self, point: AttentionPoint) -> Attention:
        """What runs a point's batch; plan it before running it."""
        ...


class TorchKernels:
    """PyTorch's attention, request by request."""

    def attention(self, point: AttentionPoint) -> Attention:
        """The same for every point."""
        return TorchAttention()


class FlashInferKernels:
    """FlashInfer's wrappers: one of each kind, and one per captured batch, whose size is fixed."""

    def __init__(
        self, flashinfer: ModuleType, model: Model, dtype: torch.dtype, device: torch.device, pages: int
    ) -> None:
        """``pages``: the most pages that a batch may have."""
        self._flashinfer = flashinfer
        self._model = model
        self._dtype = dtype
        self._device = device
        self._workspace = Workspace(device)
        self._page_buffer = torch.zeros(pages, dtype=torch.int32, device=device)
        self._eager: dict[str, Attention] = {}

    def attention(self, point: AttentionPoint) -> Attention:
        """The wrapper for a point's kernel and way of planning."""
        if point.planned == "graph":
            return GraphDecodeAttention(
                self._flashinfer,
                self._model,
                self._dtype,
                self._workspace,
                tensor_cores=point.kernel == TENSOR_CORE,
                requests=len(point.contexts),
                page_buffer=self._page_buffer,
            )
        kernel = TENSOR_CORE if point.kernel == PREFILL_KERNEL else point.kernel
        if kernel not in self._eager:
            self._eager[kernel] = self._wrapper(kernel)
        return self._eager[kernel]

    def _wrapper(self, kernel: str) -> Attention:
        if kernel == BATCH:
            return FlashInferBatchAttention(self._flashinfer, self._model, self._dtype, self._device)
        return FlashInferAttention(
            self._flashinfer, self._model, self._dtype, self._workspace, tensor_cores=kernel == TENSOR_CORE
        )


def decode_kernels(model: Model, device: torch.device) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """(kernel, planned) pairs to measure for a model's decodes, the served one first; and why others are left out.

    Raises:
        InputError: the device has no kernel for the model's heads.
    """
    if device.type != "cuda":
        return ((TORCH_CPU, "eager"),), ()
    check_supported(model, _PATHS[TENSOR_CORE])
    graphs, eager, left_out = [(TENSOR_CORE, "graph")], [(TENSOR_CORE, "eager")], []
    try:
        check_supported(model, _PATHS[CUDA_CORE])
    except InputError as error:
        left_out.append(str(error))
    else:
        graphs.append((CUDA_CORE, "graph"))
        eager.append((CUDA_CORE, "eager"))
    return (*graphs, (BATCH, "eager"), *eager), tuple(left_out)


def prefill_kernels(device: torch.device) -> tuple[str, ...]:
    """Kernels to measure for prompts."""
    return (PREFILL_KERNEL, BATCH) if device.type == "cuda" else (TORCH_CPU,)
