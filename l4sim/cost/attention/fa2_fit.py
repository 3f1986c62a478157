"""FA2's coefficients from one GPU's profile: uniform, skewed and mixed batches of one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch
from l4sim.cost.attention.coarse import best_alpha, skew_alpha
from l4sim.cost.attention.fa2 import FA2Coefficients, fa2_attention
from l4sim.cost.attention.fit import FloatArray, held_out_fifth, least_squares
from l4sim.cost.attention.points import MixedPoints, SkewPoints, no_skew_points
from l4sim.cost.attention.shape import Shape
from l4sim.cost.fitting import BoolArray, Errors, errors
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

_ODD_DECODES = 64
"""FA2 stops splitting between 32 and 64 requests of the profiled shape: told apart in the report."""
# More points, or a finer tolerance, change no error by a tenth and take several times as long.
_MIXED_SAMPLE = 200
_SKEW_SAMPLE = 120
_TOLERANCE = 1e-3
_SKEW_WEIGHT = 3.0


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


def fit_fa2(
    points: MixedPoints, skewed: SkewPoints | None, gpu: GPU, shape: Shape
) -> tuple[FA2Coefficients, float, dict[str, Errors | SkewErrors]]:
    """Fit one kind of batch after the other, a fifth of each held out.

    Returns the coefficients, the best constant alpha of ``skew``, and errors by kind: ``decode``, ``prefill``,
    ``mixed``, ``skew`` (decodes alone), ``skew_64`` (those of them with 64 requests) and ``skew_all`` (those beside a
    prefill chunk too); kinds of which there are no points are left out. Without skewed points alpha is the one that
    suits the fitted model best.

    Raises:
        InputError: no batches of decodes alone.
    """
    skewed = skewed or no_skew_points()
    unseen = held_out_fifth((points.chunk_tokens, points.cached_tokens, points.decodes, points.context_tokens))
    decode, prefill = points.chunk_tokens == 0, points.decodes == 0
    mixed = ~decode & ~prefill
    pure = skewed.chunk_tokens == 0
    unseen_skew = held_out_fifth((skewed.chunk_tokens, skewed.decodes, skewed.long, skewed.short_tokens))

    if not decode.any():
        raise InputError("attention: no batches of decodes alone (prefill_chunk 0), which the fit starts from")
    c = _fit_decode(points, decode & ~unseen, skewed, _sample(pure & ~unseen_skew, _SKEW_SAMPLE), gpu, shape)
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
    report: dict[str, Errors | SkewErrors] = {
        kind: errors(_predict(tile, _batches(points, mask & unseen)), points.seconds[mask & unseen], 0)
        for kind, mask in kinds.items()
        if (mask & unseen).any()
    }
    skews = {"skew": pure, "skew_64": pure & (skewed.decodes == _ODD_DECODES), "skew_all": np.ones_like(pure)}
    for kind, mask in skews.items():
        if (mask & unseen_skew).any():
            report[kind] = _skew_errors(tile, skewed, mask & unseen_skew)
    if not pure.any():
        return c, skew_alpha(tile), report
    return c, best_alpha(skewed.mean_s[pure], skewed.longest_s[pure], skewed.seconds[pure]), report


def _sample(mask: BoolArray, most: int) -> BoolArray:
    """The mask with at most so many points left, drawn with a fixed seed."""
    chosen = np.zeros_like(mask)
    chosen[np.random.default_rng(0).permutation(np.flatnonzero(mask))[:most]] = True
    return chosen


def _fit_decode(
    points: MixedPoints, uniform: BoolArray, skewed: SkewPoints, pure: BoolArray, gpu: GPU, shape: Shape
) -> FA2Coefficients:
    """Uniform and skewed decodes together: only unequal lengths tell how fast a block is when others are done."""
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


def _fit(
    start: FA2Coefficients,
    bounds: Mapping[str, tuple[float, float]],
    points: MixedPoints,
    mask: BoolArray,
    shape: Shape,
) -> FA2Coefficients:
    """Fit to part of a profile, which has prefills before decodes; the start where that part is empty."""
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
