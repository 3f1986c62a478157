"""A kernel's coefficients on a GPU where it was not measured, from one where it was: by SM speed and bandwidth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l4sim.specs.gpu import GPU

# Operations of an FA3 prefill tile on one block of keys: 128 rows, 128 tokens, head_dim 128, two products.
_FA3_TILE_FLOPS = 4 * 128**3
# FA3 of 2025, with tiles of 128 rows, decodes QwQ-32B on H20 (sgl-project/sglang#5630) at this fraction of the peak.
_FA3_TENSOR_CORE_FRACTION = 0.83


def scaled_fa3(coefficients: Mapping[str, Any], measured: GPU, target: GPU) -> dict[str, Any]:
    """FA3's coefficients for another Hopper GPU. Source: ours; not measured.

    Rates of memory scale with its bandwidth. A block of keys takes as long as where it was measured, unless the
    target's SM computes it slower (H20): for a prefill tile all its 128 rows, for a decode tile 64 rows, though few of
    them are in use (vllm-project/flash-attention#63).
    """
    arithmetic_s = _FA3_TILE_FLOPS / (target.bf16_flops / target.sms * _FA3_TENSOR_CORE_FRACTION)
    return {
        **_other_memory(coefficients, measured, target),
        "tile_kv_block_s": max(coefficients["tile_kv_block_s"], arithmetic_s),
        "kv_block_s": max(coefficients["kv_block_s"], arithmetic_s / 2),
    }


def scaled_fa2(coefficients: Mapping[str, Any], measured: GPU, target: GPU) -> dict[str, Any]:
    """FA2's coefficients for another GPU. Source: ours; not measured.

    Rates of memory scale with its bandwidth, blocks of keys with one SM's arithmetic, which FA2 keeps busy where it was
    measured, and what stays in L2 with its size.
    """
    slower = (measured.bf16_flops / measured.sms) / (target.bf16_flops / target.sms)
    return {
        **_other_memory(coefficients, measured, target),
        "tile_kv_block_s": coefficients["tile_kv_block_s"] * slower,
        "kv_block_s": coefficients["kv_block_s"] * slower,
        "drift_bytes": coefficients["drift_bytes"] * target.l2_bytes / measured.l2_bytes,
    }


def _other_memory(coefficients: Mapping[str, Any], measured: GPU, target: GPU) -> dict[str, Any]:
    faster = target.memory_bytes_per_s / measured.memory_bytes_per_s
    return {name: value * faster if name.endswith("_bytes_per_s") else value for name, value in coefficients.items()}
