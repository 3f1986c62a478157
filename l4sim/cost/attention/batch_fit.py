"""Coefficients of kernels that were measured batch by batch: FlashInfer's on a GPU, PyTorch's on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from l4sim.cost.attention.batch_points import PREFILL_KERNEL, BatchPoint
from l4sim.cost.attention.coarse import skew_alpha
from l4sim.cost.attention.fit import held_out_fifth, least_squares
from l4sim.cost.attention.flashinfer import BATCH, CUDA_CORE, FlashInferCoefficients, assumed, flashinfer_attention
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.torch_cpu import TORCH_CPU, TorchCpuAttention, TorchCpuCoefficients, work
from l4sim.cost.fitting import BoolArray, Errors, FloatArray, beats_roofline, errors
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

# Ten coefficients fitted to fewer points would fit noise.
_LEAST_DECODES = 20
_LEAST_PREFILLS = 5
# Nor do they need more, and each costs a planner's run per step of the fit.
_MOST_DECODES = 300


def fit_batches(kernel: str, points: Sequence[BatchPoint], gpu: GPU) -> tuple[dict[str, Any], dict[str, Errors]]:
    """Fit one kernel to its points in a measured folder; a fifth of each kind of batch is held out.

    FlashInfer's decodes are fitted as planned for CUDA graphs where the kernel can be captured, its prompts to the
    points of the prefill wrapper, or of BatchAttention itself. Points that beat the roofline are flagged and left out.

    Returns the coefficients, ``skew_alpha`` included, and held-out errors: ``uniform`` and ``heterogeneous`` decodes,
    ``prefill`` and ``mixed`` batches, those of them that were measured.

    Raises:
        InputError: too few points of the kernel.
    """
    own = [point for point in points if _belongs(point, kernel)]
    impossible = _impossible(own, gpu)
    kept = [point for point, flag in zip(own, impossible, strict=True) if not flag]
    kinds = np.array([_kind(point) for point in kept])
    unseen = _unseen(kept, kinds)
    flagged = int(impossible.sum())
    _need(kernel, "decode", np.isin(kinds, ("uniform", "heterogeneous")) & ~unseen, _LEAST_DECODES)
    _need(kernel, "prefill", (kinds == "prefill") & ~unseen, _LEAST_PREFILLS)
    c: TorchCpuCoefficients | FlashInferCoefficients
    if kernel == TORCH_CPU:
        c = _fit_torch_cpu([point for point, out in zip(kept, unseen, strict=True) if not out])
    else:
        c = _fit_flashinfer(kernel, kept, kinds, unseen, gpu)
    report = {}
    for kind in ("uniform", "heterogeneous", "prefill", "mixed"):
        chosen = _select(kept, (kinds == kind) & unseen)
        if chosen:
            report[kind] = errors(_predict(kernel, c, chosen), _seconds(chosen), flagged)
    alpha = skew_alpha(_model(kernel, kept[0].shape, c))
    return {**asdict(c), "skew_alpha": alpha}, report


def _belongs(point: BatchPoint, kernel: str) -> bool:
    if point.kernel != kernel:
        return point.kernel == PREFILL_KERNEL and kernel not in (BATCH, TORCH_CPU)
    captured = kernel not in (BATCH, TORCH_CPU)
    # Eager plans of decodes split otherwise than the captured ones, which are what is served.
    return not captured or point.planned == "graph" or bool(point.batch.prefills)


def _kind(point: BatchPoint) -> str:
    if point.batch.prefills:
        return "mixed" if len(point.batch.decode_context_tokens) else "prefill"
    return "uniform" if point.pattern == "uniform" else "heterogeneous"


def _impossible(points: Sequence[BatchPoint], gpu: GPU) -> BoolArray:
    size_bytes, flops = np.zeros(len(points)), np.zeros(len(points))
    for row, point in enumerate(points):
        chunks, shape = point.batch.prefills, point.shape
        tokens = point.batch.decode_context_sum + sum(chunk.chunk_tokens + chunk.cached_tokens for chunk in chunks)
        pairs = point.batch.decode_context_sum + sum(
            chunk.chunk_tokens * (chunk.cached_tokens + (chunk.chunk_tokens + 1) / 2) for chunk in chunks
        )
        size_bytes[row] = tokens * shape.kv_bytes_per_token + point.batch.tokens * shape.query_bytes_per_token
        flops[row] = 4.0 * shape.head_dim * shape.heads * pairs
    return beats_roofline(_seconds(points), size_bytes, flops, gpu)


def _unseen(points: Sequence[BatchPoint], kinds: np.ndarray[Any, Any]) -> BoolArray:
    """A fifth of each kind, spread over batch sizes and tokens."""
    mask = np.zeros(len(points), dtype=np.bool_)
    requests = np.array([len(point.batch.decode_context_tokens) for point in points], dtype=np.int64)
    tokens = np.array([point.batch.decode_context_sum + point.batch.tokens for point in points], dtype=np.int64)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        mask[rows] = held_out_fifth((requests[rows], tokens[rows]))
    return mask


def _need(kernel: str, kind: str, mask: BoolArray, least: int) -> None:
    if mask.sum() < least:
        raise InputError(
            f"{kernel}: {int(mask.sum())} {kind} points to fit, accepted are {least} or more: measure for longer"
        )


def _fit_torch_cpu(points: Sequence[BatchPoint]) -> TorchCpuCoefficients:
    """Non-negative least squares of relative errors."""
    from scipy.optimize import nnls

    terms = np.array([(1.0, *work(point.batch, point.shape)) for point in points])
    # Columns differ by many orders of magnitude: scaled to one, lest the solver's tolerance drop the small ones.
    scale = np.maximum(terms.max(axis=0), 1.0)
    coefficients, _ = nnls(terms / scale / _seconds(points)[:, None], np.ones(len(points)))
    return TorchCpuCoefficients(*(coefficients / scale).tolist())


def _fit_flashinfer(
    kernel: str, points: Sequence[BatchPoint], kinds: np.ndarray[Any, Any], unseen: BoolArray, gpu: GPU
) -> FlashInferCoefficients:
    """Decodes and prompts together: they share the memory."""
    peak = gpu.memory_bytes_per_s
    bounds = {
        "launch_s": (1e-6, 2e-5),
        "block_start_s": (2e-7, 1e-5),
        "block_bytes_per_s": (0.05 * peak / gpu.sms, 4 * peak / gpu.sms),
        "cuda_core_flops": (1e-3 * gpu.bf16_flops, 0.1 * gpu.bf16_flops),
        "cuda_core_shared": (0.0, 1.0),
        "dram_bytes_per_s": (0.4 * peak, peak),
        "ramp_bytes_per_s": (0.2 * peak, peak),
        "exposed_start": (0.0, 1.0),
        "sharpness": (1.0, 12.0),
        "merge_s": (1e-7, 1e-5),
        "merge_row_s": (1e-11, 1e-8),
        "prefill_launch_s": (1e-6, 2e-5),
        "prefill_start_s": (2e-7, 2e-5),
        "prefill_flops": (0.05 * gpu.bf16_flops, gpu.bf16_flops),
        "prefill_alone": (0.5, 1.0),
        "prefill_row_s": (1e-11, 1e-8),
    }
    if kernel != CUDA_CORE:
        del bounds["cuda_core_flops"], bounds["cuda_core_shared"]
    rows = np.flatnonzero(np.isin(kinds, ("uniform", "heterogeneous")) & ~unseen)
    sample = np.random.default_rng(0).permutation(rows)[:_MOST_DECODES]
    seen = [points[row] for row in (*sample.tolist(), *np.flatnonzero((kinds == "prefill") & ~unseen).tolist())]
    return least_squares(assumed(gpu), bounds, lambda c: _predict(kernel, c, seen), _seconds(seen), 1e-4)


def _predict(kernel: str, c: TorchCpuCoefficients | FlashInferCoefficients, points: Sequence[BatchPoint]) -> FloatArray:
    models = {shape: _model(kernel, shape, c) for shape in {point.shape for point in points}}
    return np.array([models[point.shape].attention_s(point.batch) for point in points])


def _model(kernel: str, shape: Shape, c: TorchCpuCoefficients | FlashInferCoefficients) -> AttentionModel:
    if isinstance(c, TorchCpuCoefficients):
        return TorchCpuAttention(shape, c)
    return flashinfer_attention(kernel, shape, c)


def _select(points: Sequence[BatchPoint], mask: BoolArray) -> list[BatchPoint]:
    return [points[row] for row in np.flatnonzero(mask).tolist()]


def _seconds(points: Sequence[BatchPoint]) -> FloatArray:
    return np.array([point.seconds for point in points])
