"""FA3's coefficients: fitted to uniform measurements, its time model over all points at once, or scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.calibration.fits.errors import FitReport, beats_roofline, errors, held_out_fifth
from l4sim.calibration.fits.least_squares import least_squares
from l4sim.calibration.fits.skew import skew_alpha
from l4sim.calibration.kernels.calibration import Calibration, Coefficients, as_json, reference_shape, with_memory_of
from l4sim.calibration.points.attention import UniformPoints, UniformTables
from l4sim.cost.attention.fa3 import (
    FA3Coefficients,
    fa3_attention,
    fixed_s,
    memory_of,
    merged_bytes,
    shared_tiles_s,
    tiles,
)
from l4sim.cost.attention.fluid import FloatArray, drain_s
from l4sim.kernels.flash_attention import fa3_splits
from l4sim.specs.gpu import GPU

SHORT_S = 20e-6
"""Decode batches faster than this are mostly launches; errors are those of the others."""

_CUDA_GRAPH_SPLITS = 32
# Operations of an FA3 prefill tile on one block of keys: 128 rows, 128 tokens, head_dim 128, two products.
_FA3_TILE_FLOPS = 4 * 128**3
# FA3 of 2025, with tiles of 128 rows, decodes QwQ-32B on H20 (sgl-project/sglang#5630) at this fraction of the peak.
_FA3_TENSOR_CORE_FRACTION = 0.83


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """What FA3 makes of uniform decode batches; all arrays are of shape ``[points]``."""

    requests: NDArray[np.int64]
    blocks: FloatArray
    """Thread blocks of the launch."""
    kv_blocks: FloatArray
    """KV blocks of a thread block."""
    waves: FloatArray
    """Thread blocks of the busiest SM."""
    last: FloatArray
    """SMs that are at work in the last wave."""
    size_bytes: FloatArray
    merge_rows: FloatArray
    merged_bytes: FloatArray


def decode_work(points: UniformPoints, sms: int) -> DecodeWork:
    """Split every point as the kernel does; a shorter last split counts as a whole one."""
    count = len(points)
    columns = np.zeros((4, count))
    for i in range(count):
        heads, kv_heads, batch = int(points.heads[i]), int(points.kv_heads[i]), int(points.batch[i])
        split = fa3_splits([int(points.tokens[i])] * batch, kv_heads=kv_heads, sms=sms, bound=_CUDA_GRAPH_SPLITS)
        blocks, splits, split_blocks = split.blocks[0], split.splits[0], split.split_blocks[0]
        columns[:, i] = (
            kv_heads * batch * -(-blocks // split_blocks),
            split_blocks,
            heads * batch if split.bound > 1 else 0,
            merged_bytes(batch * splits if splits > 1 else 0, heads, points.head_dim),
        )
    launched, kv_blocks, merge_rows, merged = columns
    waves = np.ceil(launched / sms)
    last = launched - (waves - 1) * sms
    return DecodeWork(points.batch, launched, kv_blocks, waves, last, decode_bytes(points), merge_rows, merged)


def decode_s(c: FA3Coefficients, work: DecodeWork, sms: int) -> NDArray[np.float64]:
    """Seconds of every point, shape ``[points]``."""
    block_s = c.block_start_s + c.kv_block_s * work.kv_blocks
    steps_s = np.stack(((work.waves - 1) * block_s, block_s), axis=-1)
    active = np.stack((np.full_like(work.last, sms), work.last), axis=-1)
    exposed_s = c.exposed_start * c.block_start_s * work.blocks
    memory_s = memory_of(c).at_all(work.size_bytes)
    pressure = (exposed_s[:, None] + memory_s[:, None] * active) / (block_s * work.blocks)[:, None]
    body_s = drain_s(steps_s, pressure, c.sharpness)
    seconds: NDArray[np.float64] = body_s + fixed_s(c, work.requests, work.merge_rows, work.merged_bytes)
    return seconds


@dataclass(frozen=True, slots=True)
class PrefillWork:
    """What FA3 makes of uniform prefill batches; all arrays are of shape ``[points]``."""

    requests: NDArray[np.int64]
    tiles: FloatArray
    """Thread blocks of the launch."""
    mean_rows: FloatArray
    most_rows: FloatArray
    kv_blocks: FloatArray
    """KV blocks over all tiles."""
    most_kv_blocks: FloatArray
    kv_bytes: FloatArray
    merge_rows: FloatArray
    merged_bytes: FloatArray


def prefill_work(points: UniformPoints, sms: int) -> PrefillWork:
    """Tile every point as the kernel does."""
    columns = np.zeros((7, len(points)))
    for i in range(len(points)):
        heads, kv_heads, batch = int(points.heads[i]), int(points.kv_heads[i]), int(points.batch[i])
        tokens = int(points.tokens[i])
        rows = tokens * (heads // kv_heads)
        made = tiles(tokens, 0, heads // kv_heads)
        split = fa3_splits([tokens] * batch, kv_heads=kv_heads, sms=sms, query_rows=[rows] * batch)
        splits = split.splits[0]
        columns[:, i] = (
            batch * kv_heads * made.number * splits,
            rows / made.number,
            made.most_rows,
            batch * kv_heads * made.kv_blocks,
            made.most_kv_blocks / splits,
            heads * batch * tokens if split.bound > 1 else 0,
            merged_bytes(batch * tokens * splits if splits > 1 else 0, heads, points.head_dim),
        )
    kv_bytes: FloatArray = 4.0 * points.head_dim * points.batch * points.kv_heads * points.tokens
    tiles_, mean_rows, most_rows, kv_blocks_, most_kv_blocks, merge_rows, merged = columns
    return PrefillWork(
        points.batch, tiles_, mean_rows, most_rows, kv_blocks_, most_kv_blocks, kv_bytes, merge_rows, merged
    )


def prefill_s(c: FA3Coefficients, work: PrefillWork, sms: int) -> NDArray[np.float64]:
    """Seconds of every point, shape ``[points]``."""
    longest_s = c.tile_start_s + c.tile_row_s * work.most_rows + c.tile_kv_block_s * work.most_kv_blocks
    total_s = work.tiles * (c.tile_start_s + c.tile_row_s * work.mean_rows) + c.tile_kv_block_s * work.kv_blocks
    shared_s = np.maximum(longest_s, shared_tiles_s(total_s, work.tiles, sms, c.tile_tail))
    body_s = np.where(work.tiles > sms, shared_s, longest_s) + work.kv_bytes / c.tile_kv_bytes_per_s
    seconds: NDArray[np.float64] = body_s + fixed_s(c, work.requests, work.merge_rows, work.merged_bytes)
    return seconds


def decode_bytes(points: UniformPoints) -> FloatArray:
    """Bytes of keys, values, queries and outputs of decode batches in bf16, shape ``[points]``."""
    return 4.0 * points.head_dim * points.batch * (points.kv_heads * points.tokens + points.heads)


def prefill_bytes(points: UniformPoints) -> FloatArray:
    """The same of causal prompts."""
    return 4.0 * points.head_dim * points.batch * points.tokens * (points.kv_heads + points.heads)


def possible_decodes(points: UniformPoints, gpu: GPU) -> UniformPoints:
    """Decode batches without those that beat the GPU's roofline."""
    flops = 4.0 * points.head_dim * points.heads * points.batch * points.tokens
    return points.where(~beats_roofline(points.seconds, decode_bytes(points), flops, gpu))


def possible_prefills(points: UniformPoints, gpu: GPU) -> UniformPoints:
    """Causal prompts without those that beat the GPU's roofline."""
    pairs = points.tokens * (points.tokens + 1) / 2
    flops = 4.0 * points.head_dim * points.heads * points.batch * pairs
    return points.where(~beats_roofline(points.seconds, prefill_bytes(points), flops, gpu))


def fit_fa3(points: UniformTables, gpu: GPU) -> tuple[dict[str, Any], FitReport]:
    """Fit both kinds of batch, a fifth of each held out; points that beat the roofline are in neither part.

    Errors are those of held-out ``decode`` batches above 20 µs, below which launches hide what is modelled, and of
    held-out ``prefill`` batches.
    """
    sms = gpu.sms
    decodes, prefills = possible_decodes(points.decode, gpu), possible_prefills(points.prefill, gpu)
    unseen = held_out_fifth((decodes.kv_heads, decodes.heads, decodes.batch, decodes.tokens))
    c = fit_decode(decodes.where(~unseen), gpu)
    long = decodes.where(unseen & (decodes.seconds > SHORT_S))
    unseen = held_out_fifth((prefills.kv_heads, prefills.heads, prefills.batch, prefills.tokens))
    c = fit_prefill(prefills.where(~unseen), gpu, c)
    prompts = prefills.where(unseen)
    flagged = len(points.decode) - len(decodes), len(points.prefill) - len(prefills)
    report = {
        "decode": errors(decode_s(c, decode_work(long, sms), sms), long.seconds, flagged[0]),
        "prefill": errors(prefill_s(c, prefill_work(prompts, sms), sms), prompts.seconds, flagged[1]),
    }
    return as_json(c, skew_alpha(fa3_attention(reference_shape(gpu), c))), FitReport(report)


def fit_decode(points: UniformPoints, gpu: GPU) -> FA3Coefficients:
    """Fit the coefficients of decode batches; those of prefills keep their starting values."""
    work = decode_work(points, gpu.sms)
    peak = gpu.memory_bytes_per_s
    start = FA3Coefficients(
        launch_s=8e-6,
        block_start_s=2e-6,
        kv_block_s=1.2e-6,
        request_s=2e-8,
        request_unsplit_s=8e-9,
        merge_row_s=3e-10,
        merge_s=2e-6,
        merge_bytes_per_s=peak,
        dram_bytes_per_s=0.9 * peak,
        ramp_bytes_per_s=0.8 * peak,
        cached_bytes=0.55 * gpu.l2_bytes,
        cached_bytes_per_s=1.8 * peak,
        exposed_start=0.6,
        sharpness=4.0,
        tile_start_s=1.3e-6,
        tile_row_s=1.5e-8,
        tile_kv_block_s=1.6e-6,
        tile_tail=0.4,
        tile_kv_bytes_per_s=0.5 * peak,
        max_splits=_CUDA_GRAPH_SPLITS,
    )
    bounds = {
        "launch_s": (2e-6, 2e-5),
        "block_start_s": (3e-7, 6e-6),
        "kv_block_s": (3e-7, 4e-6),
        "request_s": (0.0, 1e-7),
        "request_unsplit_s": (0.0, 1e-7),
        "merge_row_s": (0.0, 3e-9),
        "merge_s": (0.0, 6e-6),
        "merge_bytes_per_s": (0.1 * peak, 5 * peak),
        "dram_bytes_per_s": (0.5 * peak, peak),
        "ramp_bytes_per_s": (0.4 * peak, peak),
        "cached_bytes": (0.2 * gpu.l2_bytes, gpu.l2_bytes),
        "cached_bytes_per_s": (peak, 8 * peak),
        "exposed_start": (0.0, 1.0),
        "sharpness": (1.0, 12.0),
    }
    return least_squares(start, bounds, lambda c: decode_s(c, work, gpu.sms), points.seconds)


def fit_prefill(points: UniformPoints, gpu: GPU, start: FA3Coefficients) -> FA3Coefficients:
    """Fit the coefficients of prefills, with those of decodes given."""
    work = prefill_work(points, gpu.sms)
    bounds = {
        "tile_start_s": (0.0, 6e-6),
        "tile_row_s": (0.0, 1e-7),
        "tile_kv_block_s": (3e-7, 6e-6),
        "tile_tail": (0.0, 2.0),
        "tile_kv_bytes_per_s": (0.1 * gpu.memory_bytes_per_s, 4 * gpu.memory_bytes_per_s),
    }
    return least_squares(start, bounds, lambda c: prefill_s(c, work, gpu.sms), points.seconds)


def scaled_fa3(coefficients: Coefficients, measured: GPU, target: GPU) -> dict[str, Any]:
    """FA3's coefficients for another Hopper GPU. Source: ours; not measured.

    Rates of memory scale with its bandwidth. A block of keys takes as long as where it was measured, unless the
    target's SM computes it slower (H20): for a prefill tile all its 128 rows, for a decode tile 64 rows, though few of
    them are in use (vllm-project/flash-attention#63).
    """
    arithmetic_s = _FA3_TILE_FLOPS / (target.bf16_flops / target.sms * _FA3_TENSOR_CORE_FRACTION)
    return {
        **with_memory_of(target, measured, coefficients, FA3Coefficients),
        "tile_kv_block_s": max(coefficients["tile_kv_block_s"], arithmetic_s),
        "kv_block_s": max(coefficients["kv_block_s"], arithmetic_s / 2),
    }


CALIBRATION = Calibration(fits={UniformTables: fit_fa3}, scale=scaled_fa3)
