"""Seconds of FlashAttention-3 as vLLM calls it on Hopper: one persistent kernel for decodes and prefill chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.fluid import issued_s
from l4sim.cost.attention.kernel import (
    Bytes,
    BytesPerSecond,
    Fraction,
    Kernel,
    NormOrder,
    Seconds,
    TileCount,
    WholeNumber,
)
from l4sim.cost.attention.memory import MemoryTable, memory_table
from l4sim.cost.attention.shape import Shape
from l4sim.kernels.flash_attention import FA3_BLOCK_TOKENS, FA3_MAX_BATCH, FA3_TILE_ROWS, Splits, fa3_splits

RAMP_BYTES = 128e6
"""Bytes that are read at ``ramp_bytes_per_s`` before DRAM reaches its full rate (a knot, not fitted)."""

_PARTIAL_BYTES = 4


@dataclass(frozen=True, slots=True)
class FA3Coefficients:
    """What is fitted for one GPU, at head_dim 128; times that depend on it are scaled to other head dimensions."""

    launch_s: Seconds
    """Launches and drain of the kernels of one layer."""
    block_start_s: Seconds
    """Start of a decode block: scheduling, loading queries, first key block."""
    kv_block_s: Seconds
    """One block of 128 KV tokens on one SM when memory keeps up, decode."""
    request_s: Seconds
    """The tile scheduler's scan over one request, up to 992 requests."""
    request_unsplit_s: Seconds
    """The same above 992 requests, where the kernel splits nothing."""
    merge_row_s: Seconds
    """The merge kernel's time for a (request, query head) pair, split or not."""
    merge_s: Seconds
    """What merging adds once anything is split."""
    merge_bytes_per_s: BytesPerSecond
    """Rate at which partial results are written and read."""
    dram_bytes_per_s: BytesPerSecond
    """DRAM bandwidth reached after the first ``RAMP_BYTES``."""
    ramp_bytes_per_s: BytesPerSecond
    """DRAM bandwidth over the first ``RAMP_BYTES``."""
    cached_bytes: Bytes
    """Bytes that stay in L2 from one call to the next; 0 for a cold cache. Twice as many push each other out."""
    cached_bytes_per_s: BytesPerSecond
    """Rate at which they are read."""
    exposed_start: Fraction
    """Fraction of a block's start during which its SM's share of bandwidth is not used by others."""
    sharpness: NormOrder
    """Order of the norm that joins latency and bandwidth."""
    tile_start_s: Seconds
    """Start and end of a prefill tile, beside its rows."""
    tile_row_s: Seconds
    """Loading and storing one row (a query token of one head) of a prefill tile."""
    tile_kv_block_s: Seconds
    """One block of 128 KV tokens for a tile of 128 rows, all of them at work."""
    tile_tail: TileCount
    """Tiles for which the SMs wait at the end."""
    tile_kv_bytes_per_s: BytesPerSecond
    """Rate at which a prefill's keys and values first come from DRAM; its tiles do not hide it."""
    max_splits: WholeNumber
    """vLLM's bound on the splits of a decode batch (its CUDA-graph setting, which the measurements show)."""


def memory_of(c: FA3Coefficients) -> MemoryTable:
    """Seconds over bytes read from memory, by the coefficients."""
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


def merged_bytes(partials: int, heads: int, head_dim: int) -> int:
    """Bytes of float32 partial results, written and read: ``partials`` for each head."""
    return 2 * _PARTIAL_BYTES * (head_dim + 1) * heads * partials


class Tiles(NamedTuple):
    """The tiles of a causal prefill chunk, of one KV head."""

    number: int
    most_rows: int
    most_kv_blocks: int
    """KV blocks that the last tile sees, and no other more."""
    kv_blocks: int
    """KV blocks over all tiles."""


def tiles(chunk_tokens: int, cached_tokens: int, group_size: int) -> Tiles:
    """Count a chunk's query tiles and the KV blocks that they visit under the causal mask.

    In closed form, and exact: from one tile to the one ``group_size`` later the last visible token moves by 128, one KV
    block.
    """
    rows = chunk_tokens * group_size
    count = -(-rows // FA3_TILE_ROWS)
    last = -(-(cached_tokens + chunk_tokens) // FA3_BLOCK_TOKENS)
    kv_blocks = last
    for first in range(1, min(group_size, count - 1) + 1):
        steps = (count - 1 - first) // group_size
        end = cached_tokens - -first * FA3_TILE_ROWS // group_size
        kv_blocks += (steps + 1) * -(-end // FA3_BLOCK_TOKENS) + steps * (steps + 1) // 2
    return Tiles(count, min(rows, FA3_TILE_ROWS), last, kv_blocks)


def shared_tiles_s(total_s: Any, count: Any, sms: int, tail: float) -> Any:
    """Seconds until ``count`` tiles of ``total_s`` in all are done, where there are more tiles than SMs.

    The work is shared evenly, except for the time of ``tail`` tiles at the end. Floats or arrays.
    """
    return total_s * (1.0 / sms + tail / count)


@dataclass(frozen=True, slots=True)
class FA3Attention:
    """An ``AttentionModel`` of FA3, by the kernel's own tiles and splits."""

    shape: Shape
    c: FA3Coefficients
    memory: MemoryTable

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        contexts = batch.decode_context_tokens.tolist()
        if batch.prefills:
            return self._mixed_s(contexts, batch.decode_context_sum, batch.prefills)
        return self._decode_s(contexts, batch.decode_context_sum) if contexts else 0.0

    def _decode_s(self, contexts: list[int], context_sum: int) -> float:
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
        partials = sum([parts for parts in split.splits if parts > 1])
        return float(
            body_s + fixed_s(c, len(contexts), merge_rows, merged_bytes(partials, shape.heads, shape.head_dim))
        )

    def _mixed_s(self, contexts: list[int], context_sum: int, prefills: tuple[Prefill, ...]) -> float:
        """Decodes and chunks in one launch; the chunks' size decides whether any request is split."""
        c, shape = self.c, self.shape
        decodes = len(contexts)
        queries = [1] * decodes + [chunk.chunk_tokens for chunk in prefills]
        lengths = contexts + [chunk.cached_tokens + chunk.chunk_tokens for chunk in prefills]
        split = fa3_splits(
            lengths, kv_heads=shape.kv_heads, sms=shape.sms, query_rows=[shape.group_size * count for count in queries]
        )
        longest_s, total_s, count = 0.0, 0.0, 0
        if decodes:
            decoding = Splits(split.blocks[:decodes], split.splits[:decodes], split.split_blocks[:decodes], split.bound)
            longest_s, total_s, count = self._streamed_s(decoding, context_sum)
        for chunk, parts in zip(prefills, split.splits[decodes:], strict=True):
            chunk_longest_s, chunk_total_s, chunk_count = self._chunk_s(chunk, parts)
            longest_s = max(longest_s, chunk_longest_s)
            total_s += chunk_total_s
            count += chunk_count
        body_s = longest_s
        if count > shape.sms:
            body_s = max(body_s, shared_tiles_s(total_s, count, shape.sms, c.tile_tail))
        kv_s = sum(lengths[decodes:]) * shape.kv_bytes_per_token / c.tile_kv_bytes_per_s
        if split.bound == 1:
            return float(body_s + kv_s + fixed_s(c, len(queries), 0, 0))
        partials = sum([parts * rows for parts, rows in zip(split.splits, queries, strict=True) if parts > 1])
        partial_bytes = merged_bytes(partials, shape.heads, shape.head_dim)
        return float(body_s + kv_s + fixed_s(c, len(queries), shape.heads * sum(queries), partial_bytes))

    def _chunk_s(self, prefill: Prefill, splits: int) -> tuple[float, float, int]:
        """Seconds of a chunk's longest tile, seconds of all its tiles on one SM, and the number of tiles."""
        c, shape = self.c, self.shape
        made = tiles(prefill.chunk_tokens, prefill.cached_tokens, shape.group_size)
        scale = shape.head_dim / 128
        row_s, kv_block_s = scale * c.tile_row_s, scale * c.tile_kv_block_s
        starts_s = made.number * c.tile_start_s + row_s * shape.group_size * prefill.chunk_tokens
        total_s = shape.kv_heads * (splits * starts_s + kv_block_s * made.kv_blocks)
        longest_s = c.tile_start_s + row_s * made.most_rows + kv_block_s * made.most_kv_blocks / splits
        return longest_s, total_s, shape.kv_heads * splits * made.number

    def _streamed_s(self, split: Splits, context_sum: int) -> tuple[float, float, int]:
        """The same of decodes; their sum is at least the time of their bytes, during which no SM gets on."""
        c, shape = self.c, self.shape
        kv_block_s = c.kv_block_s * shape.head_dim / 128
        count = sum([-(-blocks // longest) for blocks, longest in zip(split.blocks, split.split_blocks, strict=True)])
        latency_s = shape.kv_heads * (c.block_start_s * count + kv_block_s * sum(split.blocks))
        streamed_s = shape.sms * self.memory.at(context_sum * shape.kv_bytes_per_token)
        total_s = (latency_s**c.sharpness + streamed_s**c.sharpness) ** (1 / c.sharpness)
        return c.block_start_s + kv_block_s * max(split.split_blocks), total_s, shape.kv_heads * count

    def _blocks(self, split: Splits) -> tuple[list[float], list[int]]:
        """Seconds of equal blocks of one KV head in order of issue, and how many there are of each.

        One or two entries per request: its whole splits, and the shorter one that takes what is left.
        """
        start_s = self.c.block_start_s
        kv_block_s = self.c.kv_block_s * self.shape.head_dim / 128
        loads, counts = [], []
        for blocks, longest in zip(split.blocks, split.split_blocks, strict=True):
            loads.append(start_s + kv_block_s * longest)
            if blocks == longest:
                counts.append(1)
                continue
            whole, rest = divmod(blocks, longest)
            counts.append(whole)
            if rest:
                loads.append(start_s + kv_block_s * rest)
                counts.append(1)
        return loads, counts


def fa3_attention(shape: Shape, c: FA3Coefficients, *, warm_l2: bool = False) -> FA3Attention:
    """FA3's time model for one rank's attention.

    ``warm_l2``: part of the keys and values is still in L2 from the call before, as in benchmarks that repeat one call.
    """
    return FA3Attention(shape, c, memory_of(c if warm_l2 else replace(c, cached_bytes=0.0)))


KERNEL = Kernel("fa3", FA3Coefficients, fa3_attention)
