"""Seconds of FlashInfer's three decode kernels, and of its prefill as a launch of its own beside them.

No measurement stands behind the figures yet: ``assumed`` derives them from a datasheet, with the fractions of peak that
FlashAttention-3 was measured to reach on H200. What one block streams alone is a guess at its bytes in flight:
calibrate it first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l4sim.cost.attention.fluid import IntArray, issued_s
from l4sim.cost.attention.memory import MemoryTable, memory_table
from l4sim.cost.attention.shape import Shape
from l4sim.cost.batch import Batch, Prefill
from l4sim.errors import InputError
from l4sim.kernels.flashinfer import (
    CUDA_CORE_BLOCKS_PER_SM,
    batch_attention_chunk_tokens,
    plan_cuda_core,
    plan_tensor_core,
)
from l4sim.specs.gpu import GPU

CUDA_CORE, TENSOR_CORE, BATCH = "flashinfer-cuda", "flashinfer-tensor", "flashinfer-batch"

_PAGE_TOKENS = 16
_RAMP_BYTES = 128e6
_TILE_TOKENS = 128
_TENSOR_CORE_BLOCKS_PER_SM = 2
_PARTIAL_BYTES = 4


@dataclass(frozen=True, slots=True)
class FlashInferCoefficients:
    """Figures of one GPU, for any shape."""

    launch_s: float
    """One launch, under CUDA graphs."""
    block_start_s: float
    """Start and end of a thread block, or of a work item of the persistent kernel."""
    block_bytes_per_s: float
    """What one thread block streams when the others leave memory to it: what it keeps in flight over the latency."""
    dram_bytes_per_s: float
    """Bandwidth after the first 128 MB."""
    ramp_bytes_per_s: float
    """Bandwidth over the first 128 MB."""
    exposed_start: float
    """Fraction of a block's start during which its SM's share of bandwidth is not used by others."""
    sharpness: float
    """Order of the norm that joins latency and bandwidth."""
    merge_s: float
    """The merge kernel, when anything is split."""
    merge_bytes_per_s: float
    """Rate at which partial results are written and read."""
    prefill_flops: float
    """Arithmetic rate of the prefill kernel, masked half of the diagonal tiles included, FLOP/s."""


def assumed(gpu: GPU) -> FlashInferCoefficients:
    """Figures for a GPU on which nothing was measured."""
    peak = gpu.memory_bytes_per_s
    return FlashInferCoefficients(
        launch_s=5e-6,
        block_start_s=2e-6,
        block_bytes_per_s=0.8 * peak / gpu.sms,
        dram_bytes_per_s=0.92 * peak,
        ramp_bytes_per_s=0.78 * peak,
        exposed_start=0.7,
        sharpness=4.0,
        merge_s=2e-6,
        merge_bytes_per_s=2 * peak,
        prefill_flops=0.65 * gpu.bf16_flops,
    )


@dataclass(frozen=True, slots=True)
class FlashInferAttention:
    """An ``AttentionModel`` of FlashInfer: decodes by the named kernel, each kind of request in its own launch."""

    kernel: str
    shape: Shape
    c: FlashInferCoefficients
    memory: MemoryTable

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        contexts = batch.decode_context_tokens
        seconds = self._prefill_s(batch.prefills) if batch.prefills else 0.0
        if not len(contexts):
            return seconds
        size_bytes = batch.decode_context_sum * self.shape.kv_bytes_per_token
        memory_s = self.memory.at(size_bytes + len(contexts) * self.shape.query_bytes_per_token)
        if self.kernel == BATCH:
            return seconds + self._balanced_s(contexts, memory_s)
        return seconds + (self._cuda_s if self.kernel == CUDA_CORE else self._tensor_s)(contexts, memory_s)

    def _cuda_s(self, contexts: IntArray, memory_s: float) -> float:
        shape = self.shape
        blocks_per_sm = CUDA_CORE_BLOCKS_PER_SM[shape.group_size]
        plan = plan_cuda_core(
            contexts,
            kv_heads=shape.kv_heads,
            page_tokens=_PAGE_TOKENS,
            sms=shape.sms,
            blocks_per_sm=blocks_per_sm,
            cuda_graph=True,
        )
        chunk = int(contexts.max()) if plan.chunk_tokens is None else plan.chunk_tokens
        return self._chunked_s(contexts, chunk, 1, blocks_per_sm, memory_s) + self._merge_s(plan.split, plan.chunks)

    def _tensor_s(self, contexts: IntArray, memory_s: float) -> float:
        shape = self.shape
        plan = plan_tensor_core(
            contexts,
            kv_heads=shape.kv_heads,
            group_size=shape.group_size,
            head_dim=shape.head_dim,
            page_tokens=_PAGE_TOKENS,
            sms=shape.sms,
            cuda_graph=True,
        )
        seconds = self._chunked_s(contexts, plan.chunk_tokens, _TILE_TOKENS, _TENSOR_CORE_BLOCKS_PER_SM, memory_s)
        return seconds + self._merge_s(plan.split, plan.chunks)

    def _chunked_s(
        self, contexts: IntArray, chunk_tokens: int, tile_tokens: int, blocks_per_sm: int, memory_s: float
    ) -> float:
        """Blocks of ``chunk_tokens``, read in tiles, in request order."""
        c, shape = self.c, self.shape
        whole = (contexts - 1) // chunk_tokens
        last = contexts - whole * chunk_tokens
        tokens = np.array((np.full_like(last, chunk_tokens), last)).T.ravel()
        tiled = -(-tokens // tile_tokens) * tile_tokens
        loads = c.block_start_s + tiled * self._token_s
        return c.launch_s + issued_s(
            loads.tolist(),
            np.array((whole, np.ones_like(whole))).T.ravel().tolist(),
            slots=blocks_per_sm * shape.sms,
            together=shape.kv_heads,
            exposed_s=c.exposed_start * c.block_start_s,
            memory_s=memory_s,
            sharpness=c.sharpness,
        )

    def _balanced_s(self, contexts: IntArray, memory_s: float) -> float:
        """Chunks to the cluster that is free first: what the planner's balancing of costs comes to."""
        shape = self.shape
        slots = 2 * shape.sms if shape.head_dim < 256 else shape.sms
        chunk = batch_attention_chunk_tokens(shape.kv_heads * int(contexts.sum()), slots)
        chunks = int((-(-contexts // chunk)).sum())
        seconds = self._chunked_s(contexts, chunk, 1, slots // shape.sms, memory_s)
        return seconds + self._merge_s(chunks > len(contexts), chunks)

    def _merge_s(self, split: bool, chunks: float) -> float:
        """The second kernel that reads ``chunks`` partial results of one token, all heads each."""
        if not split:
            return 0.0
        partial_bytes = 2 * _PARTIAL_BYTES * chunks * self.shape.heads * (self.shape.head_dim + 1)
        return self.c.merge_s + partial_bytes / self.c.merge_bytes_per_s

    def _prefill_s(self, prefills: tuple[Prefill, ...]) -> float:
        """Query tiles on whole KV tiles, long contexts in chunks, spread evenly over SMs but for the longest block."""
        c, shape = self.c, self.shape
        queries = np.array([chunk.chunk_tokens for chunk in prefills], np.int64)
        contexts = queries + np.array([chunk.cached_tokens for chunk in prefills], np.int64)
        plan = plan_tensor_core(
            contexts,
            queries,
            kv_heads=shape.kv_heads,
            group_size=shape.group_size,
            head_dim=shape.head_dim,
            page_tokens=_PAGE_TOKENS,
            sms=shape.sms,
        )
        tile_s = 4 * plan.tile_q * _TILE_TOKENS * shape.head_dim * shape.sms / c.prefill_flops
        longest = total = partials = 0.0
        for chunk_tokens, cached_tokens, _ in prefills:
            rows = chunk_tokens * shape.group_size
            ends = np.minimum(
                -(-np.arange(plan.tile_q, rows + plan.tile_q, plan.tile_q) // shape.group_size), chunk_tokens
            )
            visible = cached_tokens + ends
            splits = -(-visible // plan.chunk_tokens)
            longest_tokens = min(int(visible[-1]), plan.chunk_tokens)
            longest = max(longest, c.block_start_s + tile_s * -(-longest_tokens // _TILE_TOKENS))
            total += shape.kv_heads * float((c.block_start_s * splits + tile_s * -(-visible // _TILE_TOKENS)).sum())
            partials += chunk_tokens * float(splits.mean())
        size_bytes = shape.kv_bytes_per_token * int(contexts.sum()) + shape.query_bytes_per_token * int(queries.sum())
        body_s = max(longest, total / shape.sms, self.memory.at(size_bytes))
        return c.launch_s + body_s + self._merge_s(plan.split, partials)

    @property
    def _token_s(self) -> float:
        """One token of one KV head in a block that memory does not hold up."""
        return 4 * self.shape.head_dim / self.c.block_bytes_per_s


def flashinfer_attention(kernel: str, shape: Shape, c: FlashInferCoefficients) -> FlashInferAttention:
    """The model of one rank's shape, its memory table made once.

    Raises InputError for a group size that the CUDA-core kernel has no occupancy for.
    """
    if kernel == CUDA_CORE and shape.group_size not in CUDA_CORE_BLOCKS_PER_SM:
        accepted = ", ".join(map(str, CUDA_CORE_BLOCKS_PER_SM))
        raise InputError(f"{kernel}: no occupancy known for group size {shape.group_size}, accepted are {accepted}")
    memory = memory_table(
        dram_bytes_per_s=c.dram_bytes_per_s, ramp_bytes_per_s=c.ramp_bytes_per_s, ramp_bytes=_RAMP_BYTES
    )
    return FlashInferAttention(kernel, shape, c, memory)
