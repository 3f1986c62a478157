"""Coefficients of every kernel, round and in the range of the fitted ones."""

from __future__ import annotations

from typing import Any

from l4sim.calibration.kernels import assumed_kernel
from l4sim.specs.gpu import GPU

H200 = GPU("h200", 132, 141 * 10**9, 4.8e12, 989e12, 50 << 20, 450e9, "round figures for tests")
FA3 = {
    "launch_s": 8e-6,
    "block_start_s": 2e-6,
    "kv_block_s": 1.3e-6,
    "request_s": 2e-8,
    "request_unsplit_s": 7e-9,
    "merge_row_s": 3e-10,
    "merge_s": 2e-6,
    "merge_bytes_per_s": 1e13,
    "dram_bytes_per_s": 4.7e12,
    "ramp_bytes_per_s": 3.7e12,
    "cached_bytes": 33e6,
    "cached_bytes_per_s": 7e12,
    "exposed_start": 0.7,
    "sharpness": 5.0,
    "tile_start_s": 1.5e-6,
    "tile_row_s": 2.5e-8,
    "tile_kv_block_s": 1.6e-6,
    "tile_tail": 0.3,
    "tile_kv_bytes_per_s": 1.3e12,
    "max_splits": 32,
    "skew_alpha": 0.25,
}
FA2 = {
    "launch_s": 1e-5,
    "block_start_s": 1e-6,
    "kv_block_s": 2.2e-6,
    "merge_s": 1e-6,
    "merge_bytes_per_s": 1e13,
    "dram_bytes_per_s": 1.5e12,
    "ramp_bytes_per_s": 1.4e12,
    "ramp_bytes": 3e8,
    "exposed_start": 0.9,
    "sharpness": 3.0,
    "empty_block_s": 3e-7,
    "tile_launch_s": 2e-6,
    "tile_start_s": 4e-6,
    "row_start_s": 2.4e-6,
    "tile_kv_block_s": 2.7e-6,
    "tile_sharpness": 9.0,
    "empty_tile_s": 4e-7,
    "drift_waves": 28.0,
    "drift_bytes": 1e8,
    "blocks_per_sm": 1,
    "skew_alpha": 0.03,
}
TORCH_CPU = {
    "launch_s": 2e-5,
    "request_s": 6e-5,
    "kv_element_s": 2e-10,
    "spilled_element_s": 1e-10,
    "pair_element_s": 5e-11,
    "skew_alpha": 0.0,
}


def coefficients_of(kernel: str) -> dict[str, Any]:
    """A copy of a kernel's round coefficients."""
    measured = {"fa3": FA3, "fa2": FA2, "trtllm-gen": FA3, "torch-cpu": TORCH_CPU}
    return dict(measured[kernel]) if kernel in measured else assumed_kernel(kernel, H200)
