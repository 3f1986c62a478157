"""FA2's coefficients: fitted to one shape's uniform, skewed and mixed batches, or scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch
from l4sim.calibration.fits.errors import BoolArray, FitReport, Report, errors, held_out_fifth
from l4sim.calibration.fits.least_squares import FloatArray, least_squares
from l4sim.calibration.fits.skew import best_alpha, skew_alpha
from l4sim.calibration.kernels.calibration import Calibration, Coefficients, as_json, with_memory_of
from l4sim.calibration.points.attention import MixedPoints, ProfiledBatches, SkewPoints, no_skew_points
from l4sim.cost.attention.fa2 import FA2Coefficients, fa2_attention
from l4sim.cost.attention.shape import Shape
from l4sim.cost.gemm import Correction, hat
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

_ODD_DECODES = 64
"""FA2 stops splitting between 32 and 64 requests of the profiled shape: the report has an entry for these."""
# More points, or a finer tolerance, change no error by a tenth and take several times as long.
_MIXED_SAMPLE = 200
_SKEW_SAMPLE = 120
_TOLERANCE = 1e-3
_SKEW_WEIGHT = 3.0
# Log2 of requests x KV heads, and of the context: finer where batches of an engine are.
_TILES_KNOTS = (3.0, 5.0, 7.0, 8.0, 9.0, 10.0, 11.0)
_CONTEXT_KNOTS = (4.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 14.0)
_RIDGE = 0.2


@dataclass(frozen=True, slots=True)
class SkewErrors:
    """Mean absolute errors of t_skew / t_mean, percentage points, on held-out batches."""

    points: int
    tile_pct: float
    mean_pct: float
    """Of predicting 1, which ``mean`` does."""
    alpha_pct: float
    """Of ``skew`` with the constant alpha that suits these very batches best."""

    def to_json(self) -> dict[str, float]:
        """As plain numbers by field name, rounded to a hundredth."""
        return {field.name: round(getattr(self, field.name), 2) for field in fields(self)}


def fit_fa2(profiled: ProfiledBatches, gpu: GPU) -> tuple[dict[str, Any], FitReport]:
    """Fit one kind of batch after the other, a fifth of each held out.

    Errors are by kind: ``decode``, ``prefill``, ``mixed``, ``skew`` (decodes alone), ``skew_64`` (those of them with
    64 requests) and ``skew_all`` (those beside a prefill chunk too); kinds of which there are no points are left out.
    Without skewed points ``skew_alpha`` is the one that suits the fitted model best.

    Raises:
        InputError: no batches of decodes alone.
    """
    points, skewed = profiled.mixed, profiled.skewed or no_skew_points()
    shape = Shape(profiled.heads, profiled.kv_heads, profiled.head_dim, gpu.sms)
    unseen = held_out_fifth((points.chunk_tokens, points.cached_tokens, points.decodes, points.context_tokens))
    decode, prefill = points.chunk_tokens == 0, points.decodes == 0
    mixed = ~decode & ~prefill
    pure = skewed.chunk_tokens == 0
    unseen_skew = held_out_fifth((skewed.chunk_tokens, skewed.decodes, skewed.long, skewed.short_tokens))

    if not decode.any():
        raise InputError("attention: no batches of decodes alone (prefill_chunk 0), which the fit starts from")
    c = _fit_decode(points, decode & ~unseen, skewed, _sample(pure & ~unseen_skew, _SKEW_SAMPLE), gpu, shape)
    c = _corrected(c, points, decode & ~unseen, shape)
    tile_bounds = {"tile_launch_s": (1e-6, 1e-5), "tile_start_s": (1e-7, 2e-5), "tile_kv_block_s": (5e-7, 2e-5)}
    c = _fit(c, tile_bounds, points, prefill & ~unseen, shape)
    mixed_bounds = {
        "row_start_s": (1e-7, 1e-5),
        "empty_tile_s": (1e-9, 2e-6),
        "tile_sharpness": (1.0, 12.0),
        "drift_waves": (3.0, 100.0),
        "drift_bytes": (1e7, 1e9),
    }
    c = _fit(c, mixed_bounds, points, _sample(mixed & ~unseen, _MIXED_SAMPLE), shape)

    tile = fa2_attention(shape, c, prefills_first=True)
    kinds = {"decode": decode, "prefill": prefill, "mixed": mixed}
    report: dict[str, Report] = {
        kind: errors(_predict(tile, _batches(points, mask & unseen)), points.seconds[mask & unseen], 0)
        for kind, mask in kinds.items()
        if (mask & unseen).any()
    }
    skews = {"skew": pure, "skew_64": pure & (skewed.decodes == _ODD_DECODES), "skew_all": np.ones_like(pure)}
    for kind, mask in skews.items():
        if (mask & unseen_skew).any():
            report[kind] = _skew_errors(tile, skewed, mask & unseen_skew)
    measured = skewed.mean_s[pure], skewed.longest_s[pure], skewed.seconds[pure]
    return as_json(c, best_alpha(*measured) if pure.any() else skew_alpha(tile)), FitReport(report)


def _sample(mask: BoolArray, most: int) -> BoolArray:
    """The mask with at most so many points left, drawn with a fixed seed."""
    chosen = np.zeros_like(mask)
    chosen[np.random.default_rng(0).permutation(np.flatnonzero(mask))[:most]] = True
    return chosen


def _fit_decode(
    points: MixedPoints, uniform: BoolArray, skewed: SkewPoints, pure: BoolArray, gpu: GPU, shape: Shape
) -> FA2Coefficients:
    """Fit uniform and skewed decodes together: only unequal lengths show how fast a block is once others are done."""
    peak = gpu.memory_bytes_per_s
    start = FA2Coefficients(
        launch_s=8e-6,
        block_start_s=2e-6,
        kv_block_s=2e-6,
        merge_s=1e-6,
        merge_bytes_per_s=2 * peak,
        dram_bytes_per_s=0.95 * peak,
        ramp_bytes_per_s=0.85 * peak,
        ramp_bytes=3e8,
        exposed_start=0.5,
        sharpness=2.0,
        empty_block_s=3e-7,
        tile_launch_s=2e-6,
        tile_start_s=4e-6,
        row_start_s=2e-6,
        tile_kv_block_s=2.7e-6,
        tile_sharpness=5.0,
        empty_tile_s=3e-7,
        drift_waves=20.0,
        drift_bytes=0.8 * gpu.l2_bytes,
        blocks_per_sm=1,
    )
    bounds = {
        "launch_s": (2e-6, 1.2e-5),
        "block_start_s": (5e-7, 8e-6),
        "kv_block_s": (3e-7, 1e-5),
        "merge_s": (1e-7, 8e-6),
        "merge_bytes_per_s": (0.1 * peak, 6 * peak),
        "dram_bytes_per_s": (0.6 * peak, peak),
        "ramp_bytes_per_s": (0.4 * peak, peak),
        "ramp_bytes": (3e7, 1e9),
        "exposed_start": (0.0, 1.0),
        "sharpness": (1.0, 12.0),
        "empty_block_s": (1e-9, 1e-6),
    }
    uniform_batches = _batches(points, uniform)
    index = np.flatnonzero(pure).tolist()
    skewed_batches = [skewed.batch(i) for i in index]
    mean_batches = [skewed.mean_batch(i) for i in index]
    skewed_s, mean_s = skewed.seconds[pure], skewed.mean_s[pure]

    def relative(c: FA2Coefficients) -> FloatArray:
        tile = fa2_attention(shape, c)
        skew, mean = _predict(tile, skewed_batches) / skewed_s, _predict(tile, mean_batches) / mean_s
        uniform_ratio = _predict(tile, uniform_batches) / points.seconds[uniform]
        return np.concatenate((uniform_ratio, skew, mean, 1 + _SKEW_WEIGHT * (skew / mean - 1)))

    return least_squares(start, bounds, relative, np.ones(len(uniform_batches) + 3 * len(index)), _TOLERANCE)


def _corrected(c: FA2Coefficients, points: MixedPoints, uniform: BoolArray, shape: Shape) -> FA2Coefficients:
    """The coefficients with what is left of uniform decodes, smoothed over a grid of two octaves and less."""
    model_s = _predict(fa2_attention(shape, c), _batches(points, uniform))
    left = np.log(points.seconds[uniform] / model_s)
    x = np.log2(points.decodes[uniform] * shape.kv_heads)
    y = np.log2(points.context_tokens[uniform])
    weights = (hat(x, _TILES_KNOTS)[:, :, None] * hat(y, _CONTEXT_KNOTS)[:, None, :]).reshape(len(left), -1)
    # A knot that no point is near stays 0.
    ridge = _RIDGE * np.eye(weights.shape[1])
    values = np.linalg.solve(weights.T @ weights + ridge, weights.T @ left).reshape(len(_TILES_KNOTS), -1)
    rows = tuple(tuple(row) for row in values.tolist())
    return replace(c, decode_correction=Correction(_TILES_KNOTS, _CONTEXT_KNOTS, rows))


def _fit(
    start: FA2Coefficients,
    bounds: Mapping[str, tuple[float, float]],
    points: MixedPoints,
    mask: BoolArray,
    shape: Shape,
) -> FA2Coefficients:
    """Fit some coefficients to some of the points; all stay as they are where there are no such points.

    LLMServingSim measured batches with prefills before decodes.
    """
    if not mask.any():
        return start
    batches = _batches(points, mask)
    return least_squares(
        start,
        bounds,
        lambda c: _predict(fa2_attention(shape, c, prefills_first=True), batches),
        points.seconds[mask],
        _TOLERANCE,
    )


def _batches(points: MixedPoints, mask: BoolArray) -> list[Batch]:
    return [points.batch(i) for i in np.flatnonzero(mask).tolist()]


def _predict(tile: AttentionModel, batches: Sequence[Batch]) -> NDArray[np.float64]:
    return np.array([tile.attention_s(batch) for batch in batches])


def _skew_errors(tile: AttentionModel, skewed: SkewPoints, mask: BoolArray) -> SkewErrors:
    index = np.flatnonzero(mask).tolist()
    measured = skewed.seconds[mask] / skewed.mean_s[mask]
    predicted = _predict(tile, [skewed.batch(i) for i in index]) / _predict(tile, [skewed.mean_batch(i) for i in index])
    alpha = best_alpha(skewed.mean_s[mask], skewed.longest_s[mask], skewed.seconds[mask])
    constant = 1 + alpha * (skewed.longest_s[mask] / skewed.mean_s[mask] - 1)
    return SkewErrors(
        points=len(index),
        tile_pct=100 * float(np.abs(predicted - measured).mean()),
        mean_pct=100 * float(np.abs(1 - measured).mean()),
        alpha_pct=100 * float(np.abs(constant - measured).mean()),
    )


def scaled_fa2(coefficients: Coefficients, measured: GPU, target: GPU) -> dict[str, Any]:
    """FA2's coefficients for another GPU. Source: ours; not measured.

    Rates of memory scale with its bandwidth, blocks of keys with one SM's arithmetic, which FA2 keeps busy where it was
    measured, and what stays in L2 with its size.
    """
    slower = (measured.bf16_flops / measured.sms) / (target.bf16_flops / target.sms)
    return {
        **with_memory_of(target, measured, coefficients, FA2Coefficients),
        "tile_kv_block_s": coefficients["tile_kv_block_s"] * slower,
        "kv_block_s": coefficients["kv_block_s"] * slower,
        "drift_bytes": coefficients["drift_bytes"] * target.l2_bytes / measured.l2_bytes,
        # Of one GPU's own: another's number of SMs moves it.
        "decode_correction": None,
    }


CALIBRATION = Calibration(fits={ProfiledBatches: fit_fa2}, scale=scaled_fa2)
