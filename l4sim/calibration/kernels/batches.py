"""Fits to batches of any lengths, of kernels that `l4sim profile measure` ran one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from l4sim.calibration.fits.errors import BoolArray, FitReport, FloatArray, beats_roofline, errors, held_out_fifth
from l4sim.calibration.fits.least_squares import least_squares
from l4sim.calibration.fits.skew import skew_alpha
from l4sim.calibration.kernels.calibration import as_json
from l4sim.calibration.points.batches import BatchPoint, MeasuredBatches
from l4sim.cost.attention.kernel import Kernel
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

C = TypeVar("C")

# Ten coefficients fitted to fewer points would fit noise.
_LEAST_DECODES = 20
_LEAST_PREFILLS = 5
# Nor do they need more, and each costs a planner's run per step of the fit.
_MOST_DECODES = 300
_TOLERANCE = 1e-4
_DECODES = ("uniform", "heterogeneous")


@dataclass(frozen=True, slots=True)
class BatchFit(Generic[C]):
    """A kernel's fit to measured batches."""

    kernel: Kernel[C]
    solve: Callable[[Sequence[BatchPoint], GPU], C]
    """From the points that the fit may see, all that can be true, to coefficients."""
    prefill_kernel: str
    """The kernel that serves prompts beside it: whose points with prompts belong to the fit, as its own do."""
    captured: bool
    """Whether its decodes are served as planned for CUDA graphs: eager plans split otherwise, and are left out."""

    def __call__(self, measured: MeasuredBatches, gpu: GPU) -> tuple[dict[str, Any], FitReport]:
        """Fit the kernel's own of the points; a fifth of each kind of batch is held out.

        Points that beat the roofline are flagged and left out. Errors are those of held-out ``uniform`` and
        ``heterogeneous`` decodes, ``prefill`` and ``mixed`` batches, those of them that were measured.

        Raises:
            InputError: too few points of the kernel.
        """
        own = [point for point in measured.points if self._has(point)]
        impossible = _impossible(own, gpu)
        kept = _select(own, ~impossible)
        kinds = np.array([_kind(point) for point in kept])
        unseen = _unseen(kept, kinds)
        _need(self.kernel.name, "decode", np.isin(kinds, _DECODES) & ~unseen, _LEAST_DECODES)
        _need(self.kernel.name, "prefill", (kinds == "prefill") & ~unseen, _LEAST_PREFILLS)
        c = self.solve(_select(kept, ~unseen), gpu)
        report = {}
        for kind in (*_DECODES, "prefill", "mixed"):
            chosen = _select(kept, (kinds == kind) & unseen)
            if chosen:
                report[kind] = errors(predict(self.kernel, c, chosen), seconds_of(chosen), int(impossible.sum()))
        return as_json(c, skew_alpha(self.kernel.build(kept[0].shape, c))), FitReport(report)

    def _has(self, point: BatchPoint) -> bool:
        if point.batch.prefills:
            return point.kernel in (self.kernel.name, self.prefill_kernel)
        return point.kernel == self.kernel.name and (not self.captured or point.planned == "graph")


def relative_least_squares(
    kernel: Kernel[C],
    start: C,
    bounds: Mapping[str, tuple[float, float]],
    seen: Sequence[BatchPoint],
) -> C:
    """The coefficients in ``bounds``, fitted to decodes and prompts together, since they share the memory."""
    decodes = [point for point in seen if _kind(point) in _DECODES]
    sample = np.random.default_rng(0).permutation(np.arange(len(decodes)))[:_MOST_DECODES]
    chosen = [*(decodes[row] for row in sample.tolist()), *(point for point in seen if _kind(point) == "prefill")]
    return least_squares(start, bounds, lambda c: predict(kernel, c, chosen), seconds_of(chosen), _TOLERANCE)


def predict(kernel: Kernel[C], c: C, points: Sequence[BatchPoint]) -> FloatArray:
    """Seconds of the points' batches by the kernel's own time model, shape ``[points]``."""
    models = {shape: kernel.build(shape, c) for shape in {point.shape for point in points}}
    return np.array([models[point.shape].attention_s(point.batch) for point in points])


def seconds_of(points: Sequence[BatchPoint]) -> FloatArray:
    """Measured seconds, shape ``[points]``."""
    return np.array([point.seconds for point in points])


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
    return beats_roofline(seconds_of(points), size_bytes, flops, gpu)


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


def _select(points: Sequence[BatchPoint], mask: BoolArray) -> list[BatchPoint]:
    return [points[row] for row in np.flatnonzero(mask).tolist()]
