"""Seconds of FlashAttention-2 as vLLM calls it: split decodes alone, and one unsplit kernel for mixed batches.

Beside a prefill chunk, every query head of a decoding request gets a thread block of its own that streams the whole
context (no packing of groups, no splits), and the grid has as many query tiles for each request as the longest chunk
needs: blocks without rows leave at once. That is why a mixed batch takes longer than its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l4sim.cost.attention.fluid import FloatArray, IntArray, issued_s
from l4sim.cost.attention.memory import MemoryTable, memory_table
from l4sim.cost.attention.shape import Shape
from l4sim.cost.batch import Batch, Prefill
from l4sim.kernels.flash_attention import FA2_BLOCK_TOKENS, FA2_TILE_ROWS, fa2_splits

_PARTIAL_BYTES = 4


@dataclass(frozen=True, slots=True)
class FA2Coefficients:
    """Fitted figures of one GPU, at head_dim 128; other head dimensions scale what depends on them."""

    launch_s: float
    """Launches and drain of the kernels of one layer."""
    block_start_s: float
    """Start and end of a decode block."""
    kv_block_s: float
    """One block of 128 KV tokens on one SM when memory keeps up, decode with packed groups."""
    merge_s: float
    """The merge kernel, which runs once anything is split."""
    merge_bytes_per_s: float
    """Rate at which partial results are written and read."""
    dram_bytes_per_s: float
    """Bandwidth that decodes reach after the first ``ramp_bytes``."""
    ramp_bytes_per_s: float
    """Bandwidth over the first ``ramp_bytes``."""
    ramp_bytes: float
    exposed_start: float
    """Fraction of a block's start during which its SM's share of bandwidth is not used by others."""
    sharpness: float
    """Order of the norm that joins latency and bandwidth."""
    empty_block_s: float
    """A split that finds no keys."""
    tile_launch_s: float
    """Launch and drain of the unsplit kernel."""
    tile_start_s: float
    """Start and end of a block of the unsplit kernel."""
    row_start_s: float
    """The same of a block with a decode's single row."""
    tile_kv_block_s: float
    """One block of 128 KV tokens for a tile of up to 64 rows."""
    tile_sharpness: float
    """Order of the norm that joins latency and bandwidth in the unsplit kernel."""
    empty_tile_s: float
    """A block of the unsplit kernel that finds no rows."""
    drift_waves: float
    """Waves after which a group's query heads have drifted apart, so that each reads the keys from DRAM itself."""
    drift_bytes: float
    """Keys and values of the decodes at work at one time that no longer stay in L2 until all heads have read them."""
    blocks_per_sm: int
    """Blocks that share an SM (shared memory: 80 KiB each at head_dim 128)."""


@dataclass(frozen=True, slots=True)
class FA2Attention:
    """An ``AttentionModel`` of FA2, by the kernel's own tiles and splits."""

    shape: Shape
    c: FA2Coefficients
    memory: MemoryTable
    prefills_first: bool = False
    """Whether prefills stand before decodes in the batch; vLLM appends new requests."""

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        contexts = batch.decode_context_tokens
        if batch.prefills:
            return self._unsplit_s(contexts, batch.decode_context_sum, batch.prefills)
        return self._decode_s(contexts, batch.decode_context_sum) if len(contexts) else 0.0

    def _decode_s(self, contexts: IntArray, context_sum: int) -> float:
        c, shape = self.c, self.shape
        splits = fa2_splits(
            int(contexts.max()), batch=len(contexts), kv_heads=shape.kv_heads, sms=shape.sms, rows=shape.group_size
        )
        blocks = -(-contexts // FA2_BLOCK_TOKENS)
        per_split = -(-blocks // splits)
        used = -(-blocks // per_split)
        whole_tokens = FA2_BLOCK_TOKENS * per_split
        last_tokens = contexts - (used - 1) * whole_tokens
        token_s = c.kv_block_s * shape.head_dim / 128 / FA2_BLOCK_TOKENS
        empty_s = np.full(len(blocks), c.empty_block_s)
        start_s = c.block_start_s
        loads = np.array((start_s + token_s * whole_tokens, start_s + token_s * last_tokens, empty_s)).T.ravel()
        counts = np.array((used - 1, np.ones_like(used), splits - used)).T.ravel()
        body_s = self._issued_s(loads, counts, shape.kv_heads, context_sum * shape.kv_bytes_per_token, c.sharpness)
        if splits == 1:
            return c.launch_s + body_s
        partial_bytes = 2 * _PARTIAL_BYTES * (shape.head_dim + 1) * shape.heads * splits * len(contexts)
        return c.launch_s + body_s + c.merge_s + partial_bytes / c.merge_bytes_per_s

    def _unsplit_s(self, contexts: IntArray, context_sum: int, prefills: tuple[Prefill, ...]) -> float:
        c, shape = self.c, self.shape
        grid_tiles = max(-(-prefill.chunk_tokens // FA2_TILE_ROWS) for prefill in prefills)
        kv_block_s = c.tile_kv_block_s * shape.head_dim / 128
        rows_s = c.row_start_s + kv_block_s * -(-contexts // FA2_BLOCK_TOKENS)
        tiles_s = c.tile_start_s + kv_block_s * np.concatenate([self._tile_blocks(prefill) for prefill in prefills])
        loads = np.concatenate((tiles_s, rows_s) if self.prefills_first else (rows_s, tiles_s))
        body_s = self._issued_s(
            loads,
            np.ones(len(loads), np.int64),
            shape.heads,
            self._read_bytes(len(contexts), context_sum),
            c.tile_sharpness,
        )
        # Empty blocks leave as fast as they are issued, all over the launch: they lengthen every slot alike.
        empty = shape.heads * ((len(contexts) + len(prefills)) * grid_tiles - len(loads))
        return c.tile_launch_s + body_s + empty * c.empty_tile_s / self._slots

    def _read_bytes(self, decodes: int, context_sum: int) -> float:
        """Bytes that unpacked decodes read from DRAM: between once and once for each head of a group."""
        if not decodes:
            return 0.0
        c, shape = self.c, self.shape
        kv_bytes = context_sum * shape.kv_bytes_per_token
        waves = decodes * shape.heads / self._slots
        at_work_bytes = kv_bytes / max(waves, 1.0)
        unshared = min(1.0, waves / c.drift_waves) * min(1.0, at_work_bytes / c.drift_bytes)
        return kv_bytes * (1 + (shape.group_size - 1) * unshared)

    @property
    def _slots(self) -> int:
        return self.shape.sms * self.c.blocks_per_sm

    def _tile_blocks(self, prefill: Prefill) -> IntArray:
        """KV blocks that each query tile of a causal chunk visits, in order of issue."""
        ends = np.minimum(
            np.arange(FA2_TILE_ROWS, prefill.chunk_tokens + FA2_TILE_ROWS, FA2_TILE_ROWS), prefill.chunk_tokens
        )
        return -(-(prefill.cached_tokens + ends) // FA2_BLOCK_TOKENS)

    def _issued_s(
        self, loads: FloatArray, counts: IntArray, together: int, size_bytes: float, sharpness: float
    ) -> float:
        return issued_s(
            loads.tolist(),
            counts.tolist(),
            slots=self._slots,
            together=together,
            exposed_s=self.c.exposed_start * self.c.block_start_s,
            memory_s=self.memory.at(size_bytes),
            sharpness=sharpness,
        )


def fa2_attention(shape: Shape, c: FA2Coefficients, *, prefills_first: bool = False) -> FA2Attention:
    """The model of one rank's shape, its memory table made once."""
    memory = memory_table(
        dram_bytes_per_s=c.dram_bytes_per_s, ramp_bytes_per_s=c.ramp_bytes_per_s, ramp_bytes=c.ramp_bytes
    )
    return FA2Attention(shape, c, memory, prefills_first)
