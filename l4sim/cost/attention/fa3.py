"""Seconds of FlashAttention-3 as vLLM calls it on Hopper: one persistent kernel for decodes and prefill chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from l4sim.cost.attention.fluid import FloatArray, IntArray, issued_s
from l4sim.cost.attention.memory import MemoryTable, memory_table
from l4sim.cost.attention.shape import Shape
from l4sim.cost.batch import Batch, Prefill
from l4sim.kernels.flash_attention import FA3_BLOCK_TOKENS, FA3_MAX_BATCH, FA3_TILE_ROWS, Splits, fa3_splits

RAMP_BYTES = 128e6
"""Bytes that are read at ``ramp_bytes_per_s`` before DRAM reaches its full rate (a knot, not fitted)."""

_PARTIAL_BYTES = 4


@dataclass(frozen=True, slots=True)
class FA3Coefficients:
    """Fitted figures of one GPU, at head_dim 128; other head dimensions scale what depends on them."""

    launch_s: float
    """Launches and drain of the kernels of one layer."""
    block_start_s: float
    """Start of a decode block: scheduling, loading queries, first key block."""
    kv_block_s: float
    """One block of 128 KV tokens on one SM when memory keeps up, decode."""
    request_s: float
    """The tile scheduler's scan over one request, up to 992 requests."""
    request_unsplit_s: float
    """The same above 992 requests, where the kernel splits nothing."""
    merge_row_s: float
    """The merge kernel's time for a (request, query head) pair, split or not."""
    merge_s: float
    """What merging adds once anything is split."""
    merge_bytes_per_s: float
    """Rate at which partial results are written and read."""
    dram_bytes_per_s: float
    """DRAM bandwidth reached after the first ``RAMP_BYTES``."""
    ramp_bytes_per_s: float
    """DRAM bandwidth over the first ``RAMP_BYTES``."""
    cached_bytes: float
    """Bytes that stay in L2 from one call to the next; 0 for a cold cache. Twice as many push each other out."""
    cached_bytes_per_s: float
    """Rate at which they are read."""
    exposed_start: float
    """Fraction of a block's start during which its SM's share of bandwidth is not used by others."""
    sharpness: float
    """Order of the norm that joins latency and bandwidth."""
    tile_start_s: float
    """Start and end of a prefill tile, beside its rows."""
    tile_row_s: float
    """Loading and storing one row (a query token of one head) of a prefill tile."""
    tile_kv_block_s: float
    """One block of 128 KV tokens for a tile of 128 rows, all of them at work."""
    tile_tail: float
    """Tiles for which the SMs wait at the end."""
    tile_kv_bytes_per_s: float
    """Rate at which a prefill's keys and values first come from DRAM; its tiles do not hide it."""
    max_splits: int
    """vLLM's bound on the splits of a decode batch (its CUDA-graph setting, which the measurements show)."""


def memory_of(c: FA3Coefficients) -> MemoryTable:
    """The memory that the coefficients describe."""
    return memory_table(
        dram_bytes_per_s=c.dram_bytes_per_s,
        ramp_bytes_per_s=c.ramp_bytes_per_s,
        ramp_bytes=RAMP_BYTES,
        cached_bytes=c.cached_bytes,
        cached_bytes_per_s=c.cached_bytes_per_s,
    )


def fixed_s(c: FA3Coefficients, requests: Any, merge_rows: Any, merged_bytes: Any) -> Any:
    """Seconds outside the blocks: launches, the scheduler's scans, the merge kernel.

    Numbers, or arrays of shape ``[batches]``: ``merge_rows`` are the (query token, head) pairs that the merge kernel
    visits, 0 where only the kernel that cannot split runs; ``merged_bytes`` the partial results, 0 if nothing is split.
    """
    scan_s = c.request_unsplit_s + (c.request_s - c.request_unsplit_s) * (requests <= FA3_MAX_BATCH)
    merge_s = c.merge_row_s * merge_rows + c.merge_s * (merged_bytes > 0) + merged_bytes / c.merge_bytes_per_s
    return c.launch_s + scan_s * requests + merge_s


def merged_bytes(splits: Any, query_tokens: Any, heads: int, head_dim: int) -> int:
    """Bytes of float32 partial results, written and read, of requests with these splits and query tokens."""
    rows = heads * int((splits * query_tokens)[splits > 1].sum())
    return 2 * _PARTIAL_BYTES * (head_dim + 1) * rows


def tiles(chunk_tokens: int, cached_tokens: int, group_size: int) -> tuple[FloatArray, FloatArray]:
    """Rows and visible KV blocks of a causal prefill chunk's tiles (of one KV head), each of shape ``[tiles]``."""
    rows = chunk_tokens * group_size
    ends = np.arange(FA3_TILE_ROWS, rows + FA3_TILE_ROWS, FA3_TILE_ROWS)
    visible = cached_tokens + np.minimum(-(-ends // group_size), chunk_tokens)
    return np.minimum(FA3_TILE_ROWS, rows - ends + FA3_TILE_ROWS), -(-visible // FA3_BLOCK_TOKENS)


def tiles_s(longest_s: Any, total_s: Any, count: Any, sms: int, tail: float) -> Any:
    """Seconds until ``count`` tiles of ``total_s`` in all and at most ``longest_s`` each are done; floats or arrays."""
    shared_s = total_s * (1.0 / sms + tail / count)
    return np.where(count > sms, np.maximum(longest_s, shared_s), longest_s)


@dataclass(frozen=True, slots=True)
class FA3Attention:
    """An ``AttentionModel`` of FA3, by the kernel's own tiles and splits."""

    shape: Shape
    c: FA3Coefficients
    memory: MemoryTable

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        contexts = batch.decode_context_tokens
        if batch.prefills:
            return self._mixed_s(contexts, batch.decode_context_sum, batch.prefills)
        return self._decode_s(contexts, batch.decode_context_sum) if len(contexts) else 0.0

    def _decode_s(self, contexts: IntArray, context_sum: int) -> float:
        c, shape = self.c, self.shape
        split = fa3_splits(contexts, kv_heads=shape.kv_heads, sms=shape.sms, bound=c.max_splits)
        loads, counts = self._blocks(split)
        size_bytes = context_sum * shape.kv_bytes_per_token + len(contexts) * shape.query_bytes_per_token
        body_s = issued_s(
            loads,
            counts,
            slots=shape.sms,
            together=shape.kv_heads,
            exposed_s=c.exposed_start * c.block_start_s,
            memory_s=self.memory.at(size_bytes),
            sharpness=c.sharpness,
        )
        merge_rows = shape.heads * len(contexts) if split.bound > 1 else 0
        partial = merged_bytes(split.splits, 1, shape.heads, shape.head_dim)
        return float(body_s + fixed_s(c, len(contexts), merge_rows, partial))

    def _mixed_s(self, contexts: IntArray, context_sum: int, prefills: tuple[Prefill, ...]) -> float:
        """Decodes and chunks in one launch; the chunks' size decides whether any request is split."""
        c, shape = self.c, self.shape
        decodes = len(contexts)
        chunks = np.array([(p.chunk_tokens, p.chunk_tokens + p.cached_tokens) for p in prefills])
        queries = np.concatenate((np.ones(decodes, np.int64), chunks[:, 0]))
        split = fa3_splits(
            np.concatenate((contexts, chunks[:, 1])),
            kv_heads=shape.kv_heads,
            sms=shape.sms,
            query_rows=shape.group_size * queries,
        )
        work = [self._chunk_s(*part) for part in zip(prefills, split.splits[decodes:].tolist(), strict=True)]
        if decodes:
            decoding = Splits(split.blocks[:decodes], split.splits[:decodes], split.split_blocks[:decodes], split.bound)
            work.append(self._streamed_s(decoding, context_sum))
        longest_s, total_s, count = (np.array(column) for column in zip(*work, strict=True))
        body_s = tiles_s(longest_s.max(), total_s.sum(), count.sum(), shape.sms, c.tile_tail)
        kv_s = int(chunks[:, 1].sum()) * shape.kv_bytes_per_token / c.tile_kv_bytes_per_s
        merge_rows = shape.heads * int(queries.sum()) if split.bound > 1 else 0
        partial = merged_bytes(split.splits, queries, shape.heads, shape.head_dim)
        return float(body_s + kv_s + fixed_s(c, len(queries), merge_rows, partial))

    def _chunk_s(self, prefill: Prefill, splits: int) -> tuple[float, float, int]:
        """A chunk's longest tile, the sum of its tiles (both in SM seconds), and their number."""
        c, shape = self.c, self.shape
        rows, kv_blocks = tiles(prefill.chunk_tokens, prefill.cached_tokens, shape.group_size)
        scale = shape.head_dim / 128
        start_s = c.tile_start_s + scale * c.tile_row_s * rows
        kv_s = scale * c.tile_kv_block_s * kv_blocks
        total_s = shape.kv_heads * float((splits * start_s + kv_s).sum())
        return float((start_s + kv_s / splits).max()), total_s, shape.kv_heads * splits * len(rows)

    def _streamed_s(self, split: Splits, context_sum: int) -> tuple[float, float, int]:
        """The same of decodes, whose bytes hold up all SMs where memory is slower than the blocks."""
        c, shape = self.c, self.shape
        loads, counts = self._blocks(split)
        latency_s = shape.kv_heads * float(loads @ counts)
        streamed_s = shape.sms * self.memory.at(context_sum * shape.kv_bytes_per_token)
        total_s = (latency_s**c.sharpness + streamed_s**c.sharpness) ** (1 / c.sharpness)
        return float(loads.max()), total_s, shape.kv_heads * int(counts.sum())

    def _blocks(self, split: Splits) -> tuple[FloatArray, IntArray]:
        """Seconds of equal blocks of one KV head in order of issue, and how many there are of each.

        Two entries per request: its whole splits, and the shorter one that takes what is left.
        """
        whole = split.blocks // split.split_blocks
        rest = split.blocks - whole * split.split_blocks
        kv_blocks = np.array((split.split_blocks, rest)).T.ravel()
        counts = np.array((whole, rest > 0)).T.ravel()
        return self.c.block_start_s + self.c.kv_block_s * self.shape.head_dim / 128 * kv_blocks, counts


def fa3_attention(shape: Shape, c: FA3Coefficients, *, warm_l2: bool = False) -> FA3Attention:
    """The model of one rank's shape, its memory table made once; L2 holds nothing yet unless it is warm."""
    return FA3Attention(shape, c, memory_of(c if warm_l2 else replace(c, cached_bytes=0.0)))
