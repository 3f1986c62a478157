"""Seconds of FlashAttention-2 as vLLM calls it: split decodes alone, and one unsplit kernel for mixed batches.

Beside a prefill chunk, every query head of a decoding request gets a thread block of its own that streams the whole
context (no packing of groups, no splits), and the grid has as many query tiles for each request as the longest chunk
needs: blocks without rows leave at once. That is why a mixed batch takes longer than its parts. Blocks of an unsplit
kernel are issued head by head (the grid's last dimension), so that the last head's longest block starts late.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log2

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.fluid import issued_s
from l4sim.cost.attention.kernel import (
    Bytes,
    BytesPerSecond,
    Fraction,
    Kernel,
    NormOrder,
    PositiveBytes,
    Seconds,
    Waves,
    WholeNumber,
)
from l4sim.cost.attention.memory import MemoryTable, memory_table
from l4sim.cost.attention.shape import Shape
from l4sim.cost.gemm import Correction
from l4sim.kernels.flash_attention import FA2_BLOCK_TOKENS, FA2_TILE_ROWS, fa2_splits

_PARTIAL_BYTES = 4


@dataclass(frozen=True, slots=True)
class FA2Coefficients:
    """What is fitted for one GPU, at head_dim 128; times that depend on it are scaled to other head dimensions."""

    launch_s: Seconds
    """Launches and drain of the kernels of one layer."""
    block_start_s: Seconds
    """Start and end of a decode block."""
    kv_block_s: Seconds
    """One block of 128 KV tokens on one SM when memory keeps up, decode with packed groups."""
    merge_s: Seconds
    """The merge kernel, which runs once anything is split."""
    merge_bytes_per_s: BytesPerSecond
    """Rate at which partial results are written and read."""
    dram_bytes_per_s: BytesPerSecond
    """Bandwidth that decodes reach after the first ``ramp_bytes``."""
    ramp_bytes_per_s: BytesPerSecond
    """Bandwidth over the first ``ramp_bytes``."""
    ramp_bytes: Bytes
    exposed_start: Fraction
    """Fraction of a block's start during which its SM's share of bandwidth is not used by others."""
    sharpness: NormOrder
    """Order of the norm that joins latency and bandwidth."""
    empty_block_s: Seconds
    """A split that finds no keys."""
    tile_launch_s: Seconds
    """Launch and drain of the unsplit kernel."""
    tile_start_s: Seconds
    """Start and end of a block of the unsplit kernel."""
    row_start_s: Seconds
    """The same of a block with a decode's single row."""
    tile_kv_block_s: Seconds
    """One block of 128 KV tokens for a tile of up to 64 rows."""
    tile_sharpness: NormOrder
    """Order of the norm that joins latency and bandwidth in the unsplit kernel."""
    empty_tile_s: Seconds
    """A block of the unsplit kernel that finds no rows."""
    drift_waves: Waves
    """Waves after which a group's query heads have drifted apart, so that each reads the keys from DRAM itself."""
    drift_bytes: PositiveBytes
    """Keys and values of the decodes at work at one time that no longer stay in L2 until all heads have read them."""
    blocks_per_sm: WholeNumber
    """Blocks that share an SM (shared memory: 80 KiB each at head_dim 128)."""
    decode_correction: Correction | None = None
    """Of decodes alone over (log2 of requests x KV heads, log2 of their mean context): what uniform batches were
    measured to take more or less than all of the above; unequal lengths change it in proportion."""


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
        contexts = batch.decode_context_tokens.tolist()
        if batch.prefills:
            return self._mixed_s(contexts, batch.decode_context_sum, batch.prefills)
        if not contexts:
            return 0.0
        seconds = self._decode_s(contexts, batch.decode_context_sum)
        if self.c.decode_correction is None:
            return seconds
        requests = len(contexts)
        x, y = log2(requests * self.shape.kv_heads), log2(batch.decode_context_sum / requests)
        return seconds * exp(interpolated(self.c.decode_correction, x, y))

    def _decode_s(self, contexts: list[int], context_sum: int) -> float:
        c, shape = self.c, self.shape
        requests, longest = self._launched_for(len(contexts), max(contexts))
        splits = fa2_splits(longest, batch=requests, kv_heads=shape.kv_heads, sms=shape.sms, rows=shape.group_size)
        token_s = c.kv_block_s * shape.head_dim / 128 / FA2_BLOCK_TOKENS
        size_bytes = context_sum * shape.kv_bytes_per_token
        if splits == 1:
            loads = [c.block_start_s + token_s * tokens for tokens in contexts]
            # The grid's slowest dimension is the head: one after the other goes over the whole batch.
            body_s = self._issued_s(loads, [1] * len(loads), size_bytes, c.sharpness, passes=shape.kv_heads)
            return c.launch_s + body_s
        loads = []
        counts: list[int] = []
        for tokens in contexts:
            blocks = -(-tokens // FA2_BLOCK_TOKENS)
            per_split = -(-blocks // splits)
            used = -(-blocks // per_split)
            whole_tokens = FA2_BLOCK_TOKENS * per_split
            last_tokens = tokens - (used - 1) * whole_tokens
            loads += (c.block_start_s + token_s * whole_tokens, c.block_start_s + token_s * last_tokens)
            counts += (used - 1, 1)
            if used < splits:
                loads.append(c.empty_block_s)
                counts.append(splits - used)
        body_s = self._issued_s(loads, counts, size_bytes, c.sharpness, together=shape.kv_heads)
        partial_bytes = 2 * _PARTIAL_BYTES * (shape.head_dim + 1) * shape.heads * splits * len(contexts)
        return c.launch_s + body_s + c.merge_s + partial_bytes / c.merge_bytes_per_s

    def _launched_for(self, requests: int, longest_tokens: int) -> tuple[int, int]:
        """Requests and longest context by which the host splits a decode batch: in a graph, those of its capture.

        The requests that pad a captured batch have no keys, and their blocks leave at once.
        """
        captured = self.shape.graph_requests
        if not captured or requests > captured[-1]:
            return requests, longest_tokens
        return captured[bisect_left(captured, requests)], self.shape.graph_tokens

    def _mixed_s(self, contexts: list[int], context_sum: int, prefills: tuple[Prefill, ...]) -> float:
        """The unsplit kernel: a block for each query tile and head, heads one after the other over the whole batch."""
        c, shape = self.c, self.shape
        grid_tiles = max(-(-prefill.chunk_tokens // FA2_TILE_ROWS) for prefill in prefills)
        kv_block_s = c.tile_kv_block_s * shape.head_dim / 128
        rows_s = [c.row_start_s + kv_block_s * -(-tokens // FA2_BLOCK_TOKENS) for tokens in contexts]
        tiles_s = [c.tile_start_s + kv_block_s * blocks for prefill in prefills for blocks in _tile_blocks(prefill)]
        loads = tiles_s + rows_s if self.prefills_first else rows_s + tiles_s
        size_bytes = self._read_bytes(len(contexts), context_sum)
        body_s = self._issued_s(loads, [1] * len(loads), size_bytes, c.tile_sharpness, passes=shape.heads)
        # Empty blocks leave as fast as they are issued, all over the launch: they lengthen every slot alike.
        empty = shape.heads * ((len(contexts) + len(prefills)) * grid_tiles - len(loads))
        return c.tile_launch_s + body_s + empty * c.empty_tile_s / self._slots

    def _read_bytes(self, decodes: int, context_sum: int) -> float:
        """Bytes that decodes read from DRAM when each query head streams the keys itself.

        Heads of a group share what one of them has brought into L2, unless they have drifted apart: the keys are read
        between once and once per head.
        """
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

    def _issued_s(
        self,
        loads: list[float],
        counts: list[int],
        size_bytes: float,
        sharpness: float,
        *,
        together: int = 1,
        passes: int = 1,
    ) -> float:
        return issued_s(
            loads,
            counts,
            slots=self._slots,
            together=together,
            passes=passes,
            exposed_s=self.c.exposed_start * self.c.block_start_s,
            memory_s=self.memory.at(size_bytes),
            sharpness=sharpness,
        )


def interpolated(correction: Correction, x: float, y: float) -> float:
    """A correction at one point, as ``Correction.log_factor`` has it for many: simulations ask all the time."""
    row, right = _between(correction.x_knots, x)
    column, above = _between(correction.y_knots, y)
    left, further = correction.values[row], correction.values[row + 1]
    low = left[column] + above * (left[column + 1] - left[column])
    high = further[column] + above * (further[column + 1] - further[column])
    return low + right * (high - low)


def _between(knots: Sequence[float], value: float) -> tuple[int, float]:
    """The knot before a value, and the share of the way to the next one; at the ends the knots themselves."""
    index = min(max(bisect_right(knots, value) - 1, 0), len(knots) - 2)
    share = (value - knots[index]) / (knots[index + 1] - knots[index])
    return index, min(max(share, 0.0), 1.0)


def _tile_blocks(prefill: Prefill) -> list[int]:
    """KV blocks that each query tile of a causal chunk visits, in order of issue."""
    chunk, cached, _ = prefill
    ends = (min(end, chunk) for end in range(FA2_TILE_ROWS, chunk + FA2_TILE_ROWS, FA2_TILE_ROWS))
    return [-(-(cached + end) // FA2_BLOCK_TOKENS) for end in ends]


def fa2_attention(shape: Shape, c: FA2Coefficients, *, prefills_first: bool = False) -> FA2Attention:
    """FA2's time model for one rank's attention."""
    memory = memory_table(
        dram_bytes_per_s=c.dram_bytes_per_s, ramp_bytes_per_s=c.ramp_bytes_per_s, ramp_bytes=c.ramp_bytes
    )
    return FA2Attention(shape, c, memory, prefills_first)


KERNEL = Kernel("fa2", FA2Coefficients, fa2_attention)
