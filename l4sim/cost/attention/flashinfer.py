"""Seconds of FlashInfer's three decode kernels, and of its prefill as a launch of its own beside them.

Tensor-core decode and BatchAttention's wait for memory: their blocks share the GPU's bandwidth. CUDA-core decode and
prefill wait for their SM's arithmetic: what counts is which blocks share an SM.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heapreplace
from itertools import repeat
from math import gcd
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.fluid import FloatArray, IntArray, issued_s
from l4sim.cost.attention.kernel import (
    BytesPerSecond,
    FlopPerSecond,
    Fraction,
    Kernel,
    NormOrder,
    PositiveFraction,
    Seconds,
)
from l4sim.cost.attention.memory import MemoryTable, memory_table
from l4sim.cost.attention.shape import Shape
from l4sim.errors import InputError
from l4sim.kernels.flashinfer import (
    CUDA_CORE_BLOCKS_PER_SM,
    batch_attention_chunk_tokens,
    cuda_core_tile_tokens,
    kv_tile_tokens,
    plan_cuda_core,
    plan_tensor_core,
    query_tile_ends,
    tensor_core_blocks,
    tensor_core_decode_chunk_tokens,
)

CUDA_CORE, TENSOR_CORE, BATCH = "flashinfer-cuda", "flashinfer-tensor", "flashinfer-batch"

T = TypeVar("T", bound=np.generic)

_PAGE_TOKENS = 16
_RAMP_BYTES = 128e6
_TILE_TOKENS = 128
_TENSOR_CORE_BLOCKS_PER_SM = 2
# CUDA-core coefficients are those of a group size at which a block has 8 tokens in flight.
_REFERENCE_TILE_TOKENS = 8
_BATCH_TILE_Q = (128, 16)
# How far blocks that wait on CUDA cores leave an SM's load above the mean, in longest blocks; ours, fits best.
_LONGEST_ABOVE_MEAN = 2


@dataclass(frozen=True, slots=True)
class FlashInferCoefficients:
    """What is fitted, or assumed, for one GPU; the same for all models."""

    launch_s: Seconds
    """One launch, under CUDA graphs."""
    block_start_s: Seconds
    """Start and end of a thread block, or of a work item of the persistent kernel."""
    block_bytes_per_s: BytesPerSecond
    """What one thread block streams when the others leave memory to it: what it keeps in flight over the latency. On
    CUDA cores of a block with 8 tokens in flight; other group sizes have more or fewer."""
    cuda_core_flops: FlopPerSecond
    """Arithmetic rate of CUDA-core decode with all SMs at work, FLOP/s."""
    cuda_core_shared: Fraction
    """Fraction of the arithmetic's time that an SM waits by the load of all SMs, the rest by its own."""
    dram_bytes_per_s: BytesPerSecond
    """Bandwidth after the first 128 MB."""
    ramp_bytes_per_s: BytesPerSecond
    """Bandwidth over the first 128 MB."""
    exposed_start: Fraction
    """Fraction of a block's start during which its SM's share of bandwidth is not used by others."""
    sharpness: NormOrder
    """Order of the norm that joins latency and bandwidth."""
    merge_s: Seconds
    """The merge kernel, when the plan counts as split."""
    merge_row_s: Seconds
    """Merging, or only copying, the partial results of one token's query head."""
    prefill_launch_s: Seconds
    """One launch of the prefill kernel."""
    prefill_start_s: Seconds
    """Start and end of one of its thread blocks."""
    prefill_flops: FlopPerSecond
    """Its arithmetic rate with two blocks on every SM, masked half of the diagonal tiles included, FLOP/s."""
    prefill_alone: PositiveFraction
    """Fraction of that rate that an SM with one block reaches."""
    prefill_row_s: Seconds
    """Merging the partial results of one query token's head, where its keys and values are split."""


@dataclass(frozen=True, slots=True)
class FlashInferAttention:
    """An ``AttentionModel`` of FlashInfer: each kind of request in its own launch, decodes by one of three kernels.

    Prompts are served by FlashInfer's prefill wrapper, unless the decode kernel serves them too.
    """

    shape: Shape
    c: FlashInferCoefficients
    memory: MemoryTable

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        contexts = batch.decode_context_tokens
        seconds = _kept_prefill_s(self, batch.prefills) if batch.prefills else 0.0
        if not len(contexts):
            return seconds
        size_bytes = batch.decode_context_sum * self.shape.kv_bytes_per_token
        memory_s = self.memory.at(size_bytes + len(contexts) * self.shape.query_bytes_per_token)
        return seconds + self._decode_s(contexts, memory_s)

    def _decode_s(self, contexts: IntArray, memory_s: float) -> float:
        """Seconds of the decodes, whose bytes take ``memory_s`` at full bandwidth."""
        raise NotImplementedError

    def _chunked_s(
        self, contexts: list[int], chunk_tokens: int, tile_tokens: int, blocks_per_sm: int, memory_s: float
    ) -> float:
        """Blocks of ``chunk_tokens``, read in tiles, in request order."""
        c, shape = self.c, self.shape
        slots = blocks_per_sm * shape.sms
        lengths, counts = counted_chunks(contexts, chunk_tokens, slots // shape.kv_heads)
        tile_s = tile_tokens * self._token_s
        loads = [c.block_start_s + -(-length // tile_tokens) * tile_s for length in lengths]
        return c.launch_s + issued_s(
            loads,
            counts,
            slots=slots,
            together=shape.kv_heads,
            exposed_s=c.exposed_start * c.block_start_s,
            memory_s=memory_s,
            sharpness=c.sharpness,
        )

    def _merge_s(self, split: bool, tokens: int) -> float:
        """Seconds of the kernel that merges partial results, those of ``tokens`` query tokens with all their heads."""
        return self.c.merge_s + self.c.merge_row_s * tokens * self.shape.heads if split else 0.0

    def _prefill_s(self, prefills: tuple[Prefill, ...]) -> float:
        queries = [chunk.chunk_tokens for chunk in prefills]
        contexts = [chunk.chunk_tokens + chunk.cached_tokens for chunk in prefills]
        shape = self.shape
        size_bytes = shape.kv_bytes_per_token * sum(contexts) + shape.query_bytes_per_token * sum(queries)
        body_s, merged_tokens = self._prefill_parts(queries, contexts)
        merge_s = self.c.prefill_row_s * merged_tokens * shape.heads
        order = self.c.sharpness
        joined_s = (body_s**order + self.memory.at(size_bytes) ** order) ** (1 / order)
        return float(self.c.prefill_launch_s + joined_s + merge_s)

    def _prefill_parts(self, queries: list[int], contexts: list[int]) -> tuple[float, float]:
        """Seconds of the launch's blocks, and how many query tokens' partial results are merged.

        One block per query tile and chunk, in turn to the SMs (FlashInfer's FA2 template).
        """
        shape = self.shape
        plan = plan_tensor_core(
            contexts,
            queries,
            kv_heads=shape.kv_heads,
            group_size=shape.group_size,
            head_dim=shape.head_dim,
            page_tokens=_PAGE_TOKENS,
            sms=shape.sms,
        )
        tokens = tensor_core_blocks(plan, contexts, queries, shape.group_size)
        return self._paired_s(self._block_s(tokens, plan.tile_q), shape.kv_heads), sum(queries) * plan.split

    def _block_s(self, tokens: IntArray, tile_q: int) -> FloatArray:
        """Seconds of prefill blocks that visit so many KV tokens, each alone on an SM."""
        c, shape = self.c, self.shape
        tile_tokens = kv_tile_tokens(tile_q)
        tile_s = 4 * tile_q * tile_tokens * shape.head_dim * shape.sms / (c.prefill_flops * c.prefill_alone)
        return np.asarray(c.prefill_start_s + -(-tokens // tile_tokens) * tile_s)

    def _paired_s(self, loads_s: FloatArray, passes: int) -> float:
        """Seconds until all SMs are done with blocks that take ``loads_s`` each, alone on an SM.

        Two blocks on one SM get on faster than one after the other. Blocks go to the SMs in turn, but none waits while
        the average SM has room for it.
        """
        share = self.c.prefill_alone
        rounds_s = _in_turn(loads_s, passes, self.shape.sms)
        longest_s, total_s = rounds_s.max(axis=0), rounds_s.sum(axis=0)
        shared_s = np.minimum(total_s, total_s.mean() + longest_s.max())
        return float((share * shared_s + (1 - share) * np.maximum(0.0, 2 * longest_s - total_s)).max())

    @property
    def _token_s(self) -> float:
        """Seconds of one token of one KV head in a block that does not wait for memory."""
        return 4 * self.shape.head_dim / self.c.block_bytes_per_s


@dataclass(frozen=True, slots=True)
class CudaCoreAttention(FlashInferAttention):
    """Decodes on CUDA cores."""

    def _decode_s(self, contexts: IntArray, memory_s: float) -> float:
        """Blocks go to the SMs round robin, and share their SM's arithmetic.

        An SM needs its longest block's latency and, on top, the arithmetic of all its blocks. Where there are more
        blocks than fit the GPU at once, the waiting ones go to SMs that have less to do.
        """
        c, shape = self.c, self.shape
        blocks_per_sm = CUDA_CORE_BLOCKS_PER_SM[shape.group_size]
        grid = blocks_per_sm * shape.sms
        plan = plan_cuda_core(
            contexts,
            kv_heads=shape.kv_heads,
            page_tokens=_PAGE_TOKENS,
            sms=shape.sms,
            blocks_per_sm=blocks_per_sm,
            cuda_graph=True,
        )
        blocks = contexts
        if plan.chunk_tokens is not None:
            blocks = _chunks(contexts, plan.chunk_tokens)
            # A graph's grid is always the largest that is split: blocks without work take their turn too.
            blocks = np.concatenate((blocks, np.zeros(grid // shape.kv_heads - len(blocks), np.int64)))
        tokens = _in_turn(blocks, shape.kv_heads, shape.sms)
        latency_s = self._token_s * _REFERENCE_TILE_TOKENS / cuda_core_tile_tokens(shape.group_size, shape.head_dim)
        arithmetic_s = 4 * shape.head_dim * shape.group_size * shape.sms / c.cuda_core_flops
        longest_tokens, total_tokens, mean_tokens = tokens.max(axis=0), tokens.sum(axis=0), tokens.sum() / shape.sms
        if len(contexts) * shape.kv_heads > grid:
            total_tokens = np.minimum(total_tokens, mean_tokens + _LONGEST_ABOVE_MEAN * longest_tokens.max())
        work_tokens = (1 - c.cuda_core_shared) * total_tokens + c.cuda_core_shared * mean_tokens
        exposed_s = c.exposed_start * c.block_start_s * (tokens > 0).sum(axis=0)
        busy_s = longest_tokens * latency_s + work_tokens * arithmetic_s + exposed_s
        seconds = c.launch_s + max(c.block_start_s + float(busy_s.max()), memory_s)
        return seconds + self._merge_s(plan.split, len(contexts))


@dataclass(frozen=True, slots=True)
class TensorCoreAttention(FlashInferAttention):
    """Decodes on tensor cores, by the template of the prefill kernel."""

    def _decode_s(self, contexts: IntArray, memory_s: float) -> float:
        shape, lengths = self.shape, contexts.tolist()
        chunk = tensor_core_decode_chunk_tokens(
            lengths,
            kv_heads=shape.kv_heads,
            group_size=shape.group_size,
            head_dim=shape.head_dim,
            page_tokens=_PAGE_TOKENS,
            sms=shape.sms,
        )
        seconds = self._chunked_s(lengths, chunk, _TILE_TOKENS, _TENSOR_CORE_BLOCKS_PER_SM, memory_s)
        # Under CUDA graphs every batch counts as split.
        return seconds + self._merge_s(True, len(contexts))


@dataclass(frozen=True, slots=True)
class BatchAttention(FlashInferAttention):
    """FlashInfer's persistent BatchAttention, which balances the work over the GPU."""

    def _decode_s(self, contexts: IntArray, memory_s: float) -> float:
        """Each chunk goes to the cluster that is free first, which comes near to the planner's balancing of costs."""
        shape, lengths = self.shape, contexts.tolist()
        slots = 2 * shape.sms if shape.head_dim < 256 else shape.sms
        chunk = batch_attention_chunk_tokens(shape.kv_heads * sum(lengths), slots)
        seconds = self._chunked_s(lengths, chunk, 1, slots // shape.sms, memory_s)
        split = sum([length > chunk for length in lengths])
        return seconds + self._merge_s(split > 0, split)

    def _prefill_parts(self, queries: list[int], contexts: list[int]) -> tuple[float, float]:
        """The same, where each chunk goes to the least loaded cluster; there are two clusters per SM."""
        shape = self.shape
        clusters = 2 * shape.sms if shape.head_dim < 256 else shape.sms
        tile_qs = [_BATCH_TILE_Q[query * shape.group_size <= _BATCH_TILE_Q[1]] for query in queries]
        ends = [
            query_tile_ends(context, query, tile_q, shape.group_size)
            for context, query, tile_q in zip(contexts, queries, tile_qs, strict=True)
        ]
        limit = batch_attention_chunk_tokens(shape.kv_heads * sum(int(tiles.sum()) for tiles in ends), clusters)
        # Clusters in groups: the KV heads of a chunk go to as many equally loaded ones.
        group = gcd(shape.kv_heads, clusters)
        costs = [(0, index) for index in range(clusters // group)]
        heapify(costs)
        loads = np.zeros(clusters // group)
        merged_rows = 0
        for tile_q in _BATCH_TILE_Q:
            longest = limit // min(shape.kv_heads, 2) if tile_q == _BATCH_TILE_Q[0] else limit
            for tiles, own in zip(ends, tile_qs, strict=True):
                if own != tile_q:
                    continue
                chunks = np.repeat(_chunks(tiles, longest), shape.kv_heads // group)
                merged_rows += tile_q * int((tiles > longest).sum())
                for tokens, seconds in zip(chunks.tolist(), self._block_s(chunks, tile_q).tolist(), strict=True):
                    cost, index = costs[0]
                    heapreplace(costs, (cost + 2 * tile_q + tokens, index))
                    loads[index] += seconds
        return self._paired_s(np.repeat(loads, group), 1), min(merged_rows / shape.group_size, sum(queries))


@lru_cache(maxsize=1 << 12)
def _kept_prefill_s(model: FlashInferAttention, prefills: tuple[Prefill, ...]) -> float:
    """A model's prefill, cached: traces repeat their prompts' lengths, and long prompts have equal chunks.

    Of Azure's conversations 88 % of the iterations with prompts are found here, of Mooncake's 70 %.
    """
    return model._prefill_s(prefills)


def counted_chunks(contexts: list[int], chunk_tokens: int, slots: int) -> tuple[list[int], list[int]]:
    """Lengths of the chunks of at most ``chunk_tokens`` that contexts are cut into, and how many there are of each.

    Where they fit the slots their order does not count, and all that are longest are one entry; else they are in order.
    """
    if chunk_tokens >= max(contexts):
        return contexts, [1] * len(contexts)
    whole = [(length - 1) // chunk_tokens for length in contexts]
    last = [length - count * chunk_tokens for length, count in zip(contexts, whole, strict=True)]
    if sum(whole) + len(last) <= slots:
        return [chunk_tokens, *last], [sum(whole), *repeat(1, len(last))]
    lengths = [length for rest in last for length in (chunk_tokens, rest)]
    return lengths, [count for number in whole for count in (number, 1)]


def _chunks(tokens: IntArray, chunk_tokens: int) -> IntArray:
    """Lengths of the chunks of at most ``chunk_tokens`` that contexts are cut into, in their order."""
    counts = -(-tokens // chunk_tokens)
    chunks = np.full(int(counts.sum()), chunk_tokens, np.int64)
    chunks[np.cumsum(counts) - 1] = tokens - (counts - 1) * chunk_tokens
    return chunks


def _in_turn(loads: NDArray[T], passes: int, sms: int) -> NDArray[T]:
    """Loads of blocks, all of them ``passes`` times, that go to the SMs in turn; shape ``[rounds, sms]``."""
    blocks = passes * len(loads)
    rounds = np.zeros((-(-blocks // sms), sms), loads.dtype)
    rounds.ravel()[:blocks].reshape(passes, -1)[:] = loads
    return rounds


def _memory(c: FlashInferCoefficients) -> MemoryTable:
    return memory_table(
        dram_bytes_per_s=c.dram_bytes_per_s, ramp_bytes_per_s=c.ramp_bytes_per_s, ramp_bytes=_RAMP_BYTES
    )


def _cuda_core(shape: Shape, c: FlashInferCoefficients) -> CudaCoreAttention:
    if shape.group_size not in CUDA_CORE_BLOCKS_PER_SM:
        accepted = ", ".join(map(str, CUDA_CORE_BLOCKS_PER_SM))
        raise InputError(f"{CUDA_CORE}: no occupancy known for group size {shape.group_size}, accepted are {accepted}")
    return CudaCoreAttention(shape, c, _memory(c))


KERNELS = (
    Kernel(CUDA_CORE, FlashInferCoefficients, _cuda_core),
    Kernel(TENSOR_CORE, FlashInferCoefficients, lambda shape, c: TensorCoreAttention(shape, c, _memory(c))),
    Kernel(BATCH, FlashInferCoefficients, lambda shape, c: BatchAttention(shape, c, _memory(c))),
)
