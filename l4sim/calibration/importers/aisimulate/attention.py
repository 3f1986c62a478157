"""Attention kernels of AISimulate's tables: how they split a batch, fitted to batches of equal lengths or scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from l4sim.calibration.datasheet import scaled_kernels
from l4sim.calibration.kernels import fit_kernel
from l4sim.calibration.points.attention import UniformPoints, UniformTables
from l4sim.calibration.profile_json import kernel_json
from l4sim.cost.attention.grouped_query import DECODE, PREFILL
from l4sim.cost.profile import load_profile
from l4sim.cost.tables.table import OperatorTable
from l4sim.specs.gpu import GPU

# Where kernels were measured that a fit to equal lengths serves.
_FITTED = {
    "h100-sxm": "fa3",
    "h200-sxm": "fa3",
    "b200-sxm": "trtllm-gen",
    "b300-sxm": "trtllm-gen",
    "gb200": "trtllm-gen",
    "gb300": "trtllm-gen",
}
_MEASURED_ELSEWHERE = {"rtx-pro-6000": "fa2"}


def attention_kernels(tables: Mapping[str, OperatorTable], gpu: GPU, source: str) -> tuple[str, dict[str, Any]]:
    """The kernel that an engine runs on this GPU, and its part of ``profile.json``.

    Its coefficients tell how a batch of unequal lengths is split; what batches of equal ones take stands in the tables.
    """
    kernel = _FITTED.get(gpu.name)
    if kernel is not None:
        points = UniformTables(_points(tables[DECODE]), _points(tables[PREFILL]))
        coefficients, report = fit_kernel(kernel, points, gpu)
        return kernel, {
            kernel: kernel_json(coefficients, report.to_json(), f"{source}: uniform batches, head_dim 128, bf16")
        }
    if gpu.name in _MEASURED_ELSEWHERE:
        kernel = _MEASURED_ELSEWHERE[gpu.name]
        other = load_profile(gpu.name).kernels[kernel]
        return kernel, {kernel: kernel_json(other.coefficients, other.errors, other.source)}
    scaled = scaled_kernels(gpu)
    return next(iter(scaled)), scaled


def _points(table: OperatorTable) -> UniformPoints:
    """Batches of full attention in bf16, of heads of 128."""
    own = table.where(head_dim=128, window=0, kv_dtype="bfloat16", dtype="bfloat16")
    row, batch, length = np.nonzero(np.isfinite(own.seconds))
    return UniformPoints(
        own.axes["batch"][batch],
        own.sizes["heads"][row],
        own.sizes["kv_heads"][row],
        own.axes["length"][length],
        own.seconds[row, batch, length],
    )
