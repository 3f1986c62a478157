"""FlashInfer's wrappers without a GPU: the same signatures, every argument checked, attention computed by PyTorch.

What a wrapper computes follows from the arguments of its `plan` alone, so that a wrong one shows in the result.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from validate_gpu.live.attention import TorchAttention
from validate_gpu.live.inputs import PageTable


def _check_int32(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.int32, f"{name} is {tensor.dtype}"
        assert tensor.dim() == 1, f"{name} has the shape {tuple(tensor.shape)}"
        assert tensor.is_contiguous(), name


def _check_indptr(indptr: Tensor, parts: int, total: int) -> None:
    assert len(indptr) == parts + 1
    assert indptr[0] == 0
    assert indptr[-1] == total
    assert (indptr.diff() >= 1).all()


class _Wrapper:
    """What all wrappers share: a planned batch, and its attention."""

    def __init__(self) -> None:
        self.plans = 0
        self._attention = TorchAttention()

    def _planned(
        self,
        query_indptr: Tensor,
        page_indptr: Tensor,
        pages: Tensor,
        contexts: Tensor,
        heads: tuple[int, int, int, int],
        dtypes: tuple[Any, Any],
    ) -> None:
        self.plans += 1
        self.heads = heads
        self.dtypes = dtypes
        page_tokens = heads[3]
        table = PageTable(
            decodes=len(contexts),
            query_indptr=query_indptr.numpy(),
            page_indptr=page_indptr.numpy(),
            pages=pages.numpy().copy(),
            context_tokens=contexts.numpy().astype(np.int32),
            page_tokens=page_tokens,
        )
        needed = -(-table.context_tokens // page_tokens)
        np.testing.assert_array_equal(np.diff(table.page_indptr), needed, "pages per request")
        self.queries = int(table.query_indptr[-1])
        self._attention.plan(table)

    def _attend(self, queries: Tensor, kv: tuple[Tensor, Tensor], out: Tensor | None) -> Tensor:
        assert self.plans, "run before plan"
        heads, kv_heads, head_dim, page_tokens = self.heads
        assert queries.shape == (self.queries, heads, head_dim)
        assert (queries.dtype, kv[0].dtype) == self.dtypes
        for part in kv:
            assert part.shape[1:] == (page_tokens, kv_heads, head_dim)
        assert out is None or out.shape == queries.shape
        return self._attention.run(queries, *kv, out=out)


class BatchDecodeWithPagedKVCacheWrapper(_Wrapper):
    def __init__(
        self,
        float_workspace_buffer: Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        use_tensor_cores: bool = False,
        paged_kv_indptr_buffer: Tensor | None = None,
        paged_kv_indices_buffer: Tensor | None = None,
        paged_kv_last_page_len_buffer: Tensor | None = None,
        backend: str = "auto",
        jit_args: Any = None,
    ) -> None:
        super().__init__()
        assert float_workspace_buffer.dtype == torch.uint8
        assert kv_layout == "NHD"
        assert not float_workspace_buffer.any()
        self.use_tensor_cores = use_tensor_cores
        self._fixed: int | None = None
        if use_cuda_graph:
            assert paged_kv_indptr_buffer is not None
            assert paged_kv_indices_buffer is not None
            assert paged_kv_last_page_len_buffer is not None
            self._fixed = len(paged_kv_last_page_len_buffer)
            assert len(paged_kv_indptr_buffer) == self._fixed + 1
            self._indices_buffer = paged_kv_indices_buffer

    def plan(
        self,
        indptr: Tensor,
        indices: Tensor,
        last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        pos_encoding_mode: str = "NONE",
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
    ) -> None:
        _check_int32(indptr=indptr, indices=indices, last_page_len=last_page_len)
        count = len(last_page_len)
        _check_indptr(indptr, count, len(indices))
        assert ((last_page_len >= 1) & (last_page_len <= page_size)).all()
        if self._fixed is not None:
            assert count == self._fixed, "the batch size is fixed under CUDA graphs"
            assert len(indices) <= len(self._indices_buffer)
        contexts = (indptr.diff() - 1) * page_size + last_page_len
        heads = (num_qo_heads, num_kv_heads, head_dim, page_size)
        one_each = torch.arange(count + 1, dtype=torch.int32)
        self._planned(one_each, indptr, indices, contexts, heads, (q_data_type, kv_data_type or q_data_type))

    def run(self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor], *, out: Tensor | None = None) -> Tensor:
        return self._attend(q, paged_kv_cache, out)


class BatchPrefillWithPagedKVCacheWrapper(_Wrapper):
    def __init__(
        self,
        float_workspace_buffer: Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,
        qo_indptr_buf: Tensor | None = None,
        paged_kv_indptr_buf: Tensor | None = None,
        paged_kv_indices_buf: Tensor | None = None,
        paged_kv_last_page_len_buf: Tensor | None = None,
        custom_mask_buf: Tensor | None = None,
        mask_indptr_buf: Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        assert kv_layout == "NHD"
        assert backend == "fa2"

    def plan(
        self,
        qo_indptr: Tensor,
        paged_kv_indptr: Tensor,
        paged_kv_indices: Tensor,
        paged_kv_last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        head_dim_vo: int | None = None,
        custom_mask: Tensor | None = None,
        packed_custom_mask: Tensor | None = None,
        causal: bool = False,
        pos_encoding_mode: str = "NONE",
        use_fp16_qk_reduction: bool = False,
        sm_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        rope_scale: float | None = None,
        rope_theta: float | None = None,
        q_data_type: Any = "float16",
        kv_data_type: Any = None,
    ) -> None:
        _check_int32(
            qo_indptr=qo_indptr, kv_indptr=paged_kv_indptr, kv_indices=paged_kv_indices, last=paged_kv_last_page_len
        )
        count = len(paged_kv_last_page_len)
        _check_indptr(qo_indptr, count, int(qo_indptr[-1]))
        _check_indptr(paged_kv_indptr, count, len(paged_kv_indices))
        assert ((paged_kv_last_page_len >= 1) & (paged_kv_last_page_len <= page_size)).all()
        assert causal
        contexts = (paged_kv_indptr.diff() - 1) * page_size + paged_kv_last_page_len
        assert (contexts >= qo_indptr.diff()).all()
        heads = (num_qo_heads, num_kv_heads, head_dim_qk, page_size)
        dtypes = (q_data_type, kv_data_type or q_data_type)
        self._planned(qo_indptr, paged_kv_indptr, paged_kv_indices, contexts, heads, dtypes)

    def run(self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor], *, out: Tensor | None = None) -> Tensor:
        return self._attend(q, paged_kv_cache, out)


class BatchAttention(_Wrapper):
    def __init__(self, kv_layout: str = "NHD", device: str = "cuda") -> None:
        super().__init__()
        assert kv_layout == "NHD"

    def plan(
        self,
        qo_indptr: Tensor,
        kv_indptr: Tensor,
        kv_indices: Tensor,
        kv_len_arr: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        head_dim_vo: int,
        page_size: int,
        causal: bool = False,
        sm_scale: float | None = None,
        logits_soft_cap: float | None = None,
        q_data_type: Any = torch.bfloat16,
        kv_data_type: Any = torch.bfloat16,
        use_profiler: bool = False,
    ) -> None:
        _check_int32(qo_indptr=qo_indptr, kv_indptr=kv_indptr, kv_indices=kv_indices, kv_len_arr=kv_len_arr)
        _check_indptr(qo_indptr, len(kv_len_arr), int(qo_indptr[-1]))
        _check_indptr(kv_indptr, len(kv_len_arr), len(kv_indices))
        assert causal
        assert head_dim_vo == head_dim_qk
        heads = (num_qo_heads, num_kv_heads, head_dim_qk, page_size)
        self._planned(qo_indptr, kv_indptr, kv_indices, kv_len_arr, heads, (q_data_type, kv_data_type))

    def run(self, q: Tensor, kv_cache: tuple[Tensor, Tensor], out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._attend(q, kv_cache, out), torch.empty(q.shape[:2])


WRAPPERS = (BatchDecodeWithPagedKVCacheWrapper, BatchPrefillWithPagedKVCacheWrapper, BatchAttention)


def stub_module(made: list[Any] | None = None) -> Any:
    """A stand-in for the `flashinfer` module; ``made`` collects the wrappers that are constructed."""

    def recording(kind: type) -> Any:
        def construct(*args: Any, **options: Any) -> Any:
            wrapper = kind(*args, **options)
            if made is not None:
                made.append(wrapper)
            return wrapper

        return construct

    return SimpleNamespace(**{kind.__name__: recording(kind) for kind in WRAPPERS})
