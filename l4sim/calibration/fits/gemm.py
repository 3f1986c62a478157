"""The matrix product's coefficients, fitted to measured points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.calibration.fits.errors import (
    BoolArray,
    Errors,
    FloatArray,
    beats_roofline,
    errors,
    held_out,
    held_out_fifth,
)
from l4sim.cost.gemm import Correction, GemmCoefficients, Neighbours, gemm_bytes, gemm_s, hat, nearness
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

# Knots as powers of two. Coarser ones miss the 6 % target, finer ones gain less than the repeat noise of 4-5 %.
_OUTPUT_KNOTS = (10.0, 14.0, 16.0, 18.0, 20.0, 22.0, 24.0, 26.0, 30.0)
_DEPTH_KNOTS = (5.0, 8.0, 10.0, 12.0, 14.0, 16.0)
_ROWS_KNOTS = (0.0, 6.0, 9.0, 15.0)
_COLUMNS_KNOTS = (5.0, 8.0, 10.0, 12.0, 14.0, 16.0)

_NAMES = (
    "launch_s",
    "bandwidth_fraction",
    "tensor_core_fraction",
    "wave_s",
    "sm_stream_bytes_per_s",
    "split_k_s",
    "overlap_exponent",
)
_START = (2.5e-6, 0.85, 0.85, 0.5e-6, 200e9, 2e-6, 3.0)
_LOWER = (0.5e-6, 0.4, 0.4, 0.0, 20e9, 0.0, 1.0)
_UPPER = (10e-6, 1.0, 1.0, 10e-6, 1e12, 20e-6, 20.0)
_PHYSICS_POINTS = 3000
# Below this relative error a point counts as fitted: repeats of one product differ by as much.
_NOISE = 0.03
# What is noise in a residual over what its neighbours share, as variances; 0.1 does equally well.
_NOISE_RATIO = 0.3


@dataclass(frozen=True, slots=True)
class GemmPoints:
    """Measured products, as columns of equal length."""

    m: NDArray[np.int64]
    n: NDArray[np.int64]
    k: NDArray[np.int64]
    seconds: FloatArray

    def __len__(self) -> int:
        return len(self.seconds)


def fit_gemm(points: GemmPoints, gpu: GPU, seed: int = 0, *, corrected: bool = True) -> tuple[GemmCoefficients, Errors]:
    """Fit the physical coefficients, then the correction to what they leave, if ``corrected`` (it needs many shapes).

    Points that beat the roofline are flagged and take no part. Errors are on a fifth of the shapes (n, k), held out
    with all their m: a model's own shapes are rarely among the measured ones.

    Raises:
        InputError: most points beat the roofline.
    """
    kept, flagged = _possible(points, gpu)
    shapes, shape_of_point = np.unique(np.stack([kept.n, kept.k]), axis=1, return_inverse=True)
    test = held_out(shapes.shape[1], seed)[shape_of_point]
    train = _select(kept, ~test)
    coefficients = _fit_physics(train, gpu, seed)
    if corrected:
        coefficients = _fit_correction(train, gpu, coefficients)
    return coefficients, _errors(_select(kept, test), gpu, coefficients, flagged)


def fit_few_gemm(points: GemmPoints, gpu: GPU, seed: int = 0) -> tuple[GemmCoefficients, Errors]:
    """The same for some hundred products of a few models' shapes, with cuBLAS 13's tiles and what neighbours tell.

    Errors are on a fifth of the points, one of each five neighbours in n, k and m: most of their shapes are known at
    other m. Of shapes never measured they say nothing.

    Raises:
        InputError: most points beat the roofline.
    """
    kept, flagged = _possible(points, gpu)
    test = held_out_fifth((kept.n, kept.k, kept.m), seed)
    train = _select(kept, ~test)
    coefficients = _fit_neighbours(train, gpu, _fit_physics(train, gpu, seed, wide_tiles=True))
    return coefficients, _errors(_select(kept, test), gpu, coefficients, flagged)


def _possible(points: GemmPoints, gpu: GPU) -> tuple[GemmPoints, int]:
    """The points that the GPU's roofline allows, and how many it does not."""
    flops = 2.0 * points.m * points.n * points.k
    impossible = beats_roofline(points.seconds, gemm_bytes(points.m, points.n, points.k), flops, gpu)
    kept = _select(points, ~impossible)
    if 2 * len(kept) < len(points):
        raise InputError(
            f"{len(points) - len(kept)} of {len(points)} matrix products are faster than {gpu.name} can be: "
            "they were measured on another GPU, or with another model or tensor-parallel size"
        )
    return kept, int(impossible.sum())


def _errors(unseen: GemmPoints, gpu: GPU, coefficients: GemmCoefficients, flagged: int) -> Errors:
    return errors(gemm_s(unseen.m, unseen.n, unseen.k, gpu, coefficients), unseen.seconds, flagged)


def _fit_physics(points: GemmPoints, gpu: GPU, seed: int, *, wide_tiles: bool = False) -> GemmCoefficients:
    from scipy.optimize import least_squares

    # Seven coefficients need no more points, and the fit takes a tenth of the time.
    points = _select(points, np.random.default_rng(seed).random(len(points)) < _PHYSICS_POINTS / len(points))
    scale = np.array(_START)

    def coefficients(scaled: FloatArray) -> GemmCoefficients:
        return GemmCoefficients(**dict(zip(_NAMES, (scaled * scale).tolist(), strict=True)), wide_tiles=wide_tiles)

    def residuals(scaled: FloatArray) -> FloatArray:
        return np.log(gemm_s(points.m, points.n, points.k, gpu, coefficients(scaled)) / points.seconds)

    fit = least_squares(
        residuals,
        np.ones(len(scale)),
        bounds=(np.array(_LOWER) / scale, np.array(_UPPER) / scale),
        loss="soft_l1",
        f_scale=0.05,
    )
    return coefficients(fit.x)


def _fit_correction(points: GemmPoints, gpu: GPU, physics: GemmCoefficients) -> GemmCoefficients:
    """Least absolute deviations (reweighted least squares, lightly damped) on the logarithm of the residual."""
    log_m, log_n, log_k = (np.log2(size) for size in (points.m, points.n, points.k))
    basis = np.hstack(
        [
            _products(hat(log_m + log_n, _OUTPUT_KNOTS), hat(log_k, _DEPTH_KNOTS)),
            _products(hat(log_m, _ROWS_KNOTS), hat(log_n, _COLUMNS_KNOTS)),
        ]
    )
    target = np.log(points.seconds / gemm_s(points.m, points.n, points.k, gpu, physics))
    weights = np.ones(len(target))
    for _ in range(6):
        weighted = basis * weights[:, None]
        values = np.linalg.solve(weighted.T @ basis + np.eye(basis.shape[1]), weighted.T @ target)
        weights = 1 / np.maximum(np.abs(basis @ values - target), _NOISE)
    split = len(_OUTPUT_KNOTS) * len(_DEPTH_KNOTS)
    return replace(
        physics,
        by_output_and_depth=_table(_OUTPUT_KNOTS, _DEPTH_KNOTS, values[:split]),
        by_shape=_table(_ROWS_KNOTS, _COLUMNS_KNOTS, values[split:]),
    )


def _fit_neighbours(points: GemmPoints, gpu: GPU, physics: GemmCoefficients) -> GemmCoefficients:
    """Kriging of the residual's logarithm: nearness as covariance, plus noise."""
    target = np.log(points.seconds / gemm_s(points.m, points.n, points.k, gpu, physics))
    sizes = (points.m, points.n, points.k)
    weights = np.linalg.solve(nearness(sizes, sizes) + _NOISE_RATIO * np.eye(len(points)), target)
    columns = (tuple(column.tolist()) for column in (*sizes, weights.round(4)))
    return replace(physics, by_neighbours=Neighbours(*columns))


def _products(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray((left[:, :, None] * right[:, None, :]).reshape(len(left), -1))


def _table(x_knots: tuple[float, ...], y_knots: tuple[float, ...], values: NDArray[Any]) -> Correction:
    grid = values.reshape(len(x_knots), len(y_knots)).round(4)
    return Correction(x_knots, y_knots, tuple(tuple(row) for row in grid.tolist()))


def _select(points: GemmPoints, mask: BoolArray) -> GemmPoints:
    return GemmPoints(points.m[mask], points.n[mask], points.k[mask], points.seconds[mask])
