"""FlashInfer's attention kernels, planned from a batch's page tables."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l4sim.cost.attention.flashinfer import BATCH, CUDA_CORE, TENSOR_CORE
from l4sim.errors import InputError
from l4sim.specs.model import Model, uniform_layers
from validate_gpu.live.inputs import PageTable

KERNELS = {"tensor-cores": TENSOR_CORE, "cuda-cores": CUDA_CORE, "batch-attention": BATCH}
"""Ways to decode, and which kernel of a profile each is: the first two with a wrapper of their own beside the one for
prompts, the last both at once."""
PATHS = tuple(KERNELS)

_HEAD_DIMS = (64, 128, 256)
CUDA_CORE_GROUPS = (1, 2, 3, 4, 8)
"""Query heads per KV head that FlashInfer's CUDA-core decode has kernels for."""
# What vLLM gives FlashInfer: its default of 128 MiB runs out with split requests under CUDA graphs.
_WORKSPACE_BYTES = 394 * 2**20


def check_supported(model: Model, path: str) -> None:
    """Check that FlashInfer has kernels for a model's heads.

    Raises:
        InputError: no such path, or a head size or group size without a kernel; FlashInfer 0.6.8's `utils.cuh`.
    """
    if path not in PATHS:
        raise InputError(f"no attention path '{path}': accepted are {', '.join(PATHS)}")
    attention = uniform_layers(model).attention
    if attention.head_dim not in _HEAD_DIMS:
        accepted = ", ".join(map(str, _HEAD_DIMS))
        raise InputError(
            f"{model.name}: FlashInfer has no kernels for head_dim {attention.head_dim}, accepted are {accepted}"
        )
    group = attention.heads // attention.kv_heads
    if path == "cuda-cores" and group not in CUDA_CORE_GROUPS:
        accepted = ", ".join(map(str, CUDA_CORE_GROUPS))
        raise InputError(
            f"{model.name}: FlashInfer's CUDA-core decode has no kernel for {group} query heads per KV head, accepted "
            f"are {accepted}; the tensor-cores path takes any"
        )


class Workspace:
    """The scratch memory that the wrappers of one device share: they run one after the other on one stream."""

    def __init__(self, device: torch.device) -> None:
        # FlashInfer wants zeros for the first use.
        self.buffer = torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)


class FlashInferAttention:
    """Attention of any step: decodes through a decode wrapper, prompts through a prefill wrapper.

    A wrapper's `plan` fills one pinned buffer and copies it asynchronously, so that a second plan needs the first one's
    copy done: an iteration's end, when its tokens have been read, sees to that.
    """

    def __init__(
        self, flashinfer: ModuleType, model: Model, dtype: torch.dtype, workspace: Workspace, *, tensor_cores: bool
    ) -> None:
        self._model = model
        self._dtype = dtype
        self._decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            workspace.buffer, "NHD", use_tensor_cores=tensor_cores
        )
        # FA2 at any head size; "auto" would take FA3 on Hopper, which splits no context.
        self._prefill = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace.buffer, "NHD", backend="fa2")
        self._decodes = 0
        self._prompts = 0

    def plan(self, table: PageTable) -> None:
        """Plan either wrapper for its part of the batch."""
        self._decodes = table.decodes
        self._prompts = len(table.context_tokens) - table.decodes
        if self._decodes:
            plan_decode(self._decode, table, self._model, self._dtype)
        if self._prompts:
            plan_prefill(self._prefill, table, self._model, self._dtype)

    def run(self, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
        """One layer's attention."""
        out = torch.empty_like(queries) if out is None else out
        if self._decodes:
            self._decode.run(queries[: self._decodes], (keys, values), out=out[: self._decodes])
        if self._prompts:
            self._prefill.run(queries[self._decodes :], (keys, values), out=out[self._decodes :])
        return out


class GraphDecodeAttention:
    """Decode attention that can be captured: one fixed batch size, page tables in fixed buffers."""

    def __init__(
        self,
        flashinfer: ModuleType,
        model: Model,
        dtype: torch.dtype,
        workspace: Workspace,
        *,
        tensor_cores: bool,
        requests: int,
        page_buffer: Tensor,
    ) -> None:
        """``page_buffer``: int32 on the device, long enough for every page of the batch; wrappers may share it."""
        self._model = model
        self._dtype = dtype
        device = workspace.buffer.device
        self._wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            workspace.buffer,
            "NHD",
            use_cuda_graph=True,
            use_tensor_cores=tensor_cores,
            paged_kv_indptr_buffer=torch.zeros(requests + 1, dtype=torch.int32, device=device),
            paged_kv_indices_buffer=page_buffer,
            paged_kv_last_page_len_buffer=torch.ones(requests, dtype=torch.int32, device=device),
        )

    def plan(self, table: PageTable) -> None:
        """Plan the wrapper; the table has been padded to its batch size."""
        plan_decode(self._wrapper, table, self._model, self._dtype)

    def run(self, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
        """One layer's attention."""
        attended: Tensor = self._wrapper.run(queries, (keys, values), out=out)
        return attended


class FlashInferBatchAttention:
    """FlashInfer's persistent kernel, which takes decodes and prompts together and balances them."""

    def __init__(self, flashinfer: ModuleType, model: Model, dtype: torch.dtype, device: torch.device) -> None:
        self._model = model
        self._dtype = dtype
        self._device = device
        self._wrapper = flashinfer.BatchAttention("NHD", str(device))

    def plan(self, table: PageTable) -> None:
        """Plan the whole batch."""
        layer = uniform_layers(self._model).attention
        self._wrapper.plan(
            _tensor(table.query_indptr).to(self._device),
            _tensor(table.page_indptr).to(self._device),
            # Not copied by the wrapper, which reads it in `run`.
            _tensor(table.pages).to(self._device),
            _tensor(table.context_tokens).to(self._device),
            layer.heads,
            layer.kv_heads,
            layer.head_dim,
            layer.head_dim,
            table.page_tokens,
            causal=True,
            q_data_type=self._dtype,
            kv_data_type=self._dtype,
        )

    def run(self, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
        """One layer's attention."""
        attended: Tensor = self._wrapper.run(queries, (keys, values), out=out)[0]
        return attended


def plan_decode(wrapper: Any, table: PageTable, model: Model, dtype: torch.dtype) -> None:
    """Plan a decode wrapper for the decoding requests of a batch.

    The tables stay on the host, where FlashInfer's planner wants them; both dtypes are named, since a query's defaults
    to float16.
    """
    count, layer = table.decodes, uniform_layers(model).attention
    wrapper.plan(
        _tensor(table.page_indptr[: count + 1]),
        _tensor(table.pages[: table.page_indptr[count]]),
        _tensor(table.last_page_tokens[:count]),
        layer.heads,
        layer.kv_heads,
        layer.head_dim,
        table.page_tokens,
        q_data_type=dtype,
        kv_data_type=dtype,
    )


def plan_prefill(wrapper: Any, table: PageTable, model: Model, dtype: torch.dtype) -> None:
    """Plan a prefill wrapper for the prompts of a batch, which come behind its decoding requests."""
    first, layer = table.decodes, uniform_layers(model).attention
    wrapper.plan(
        _tensor(table.query_indptr[first:] - table.query_indptr[first]),
        _tensor(table.page_indptr[first:] - table.page_indptr[first]),
        _tensor(table.pages[table.page_indptr[first] :]),
        _tensor(table.last_page_tokens[first:]),
        layer.heads,
        layer.kv_heads,
        layer.head_dim,
        table.page_tokens,
        causal=True,
        q_data_type=dtype,
        kv_data_type=dtype,
    )


def _tensor(values: np.ndarray[Any, np.dtype[np.int32]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32))
