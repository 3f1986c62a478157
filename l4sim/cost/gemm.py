"""Seconds of one bf16 matrix product: tiles over SMs, bytes over bandwidth, and a small measured correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from l4sim.errors import InputError
from l4sim.json_files import NonNegative, NonNegatives, Numbers, Positive, refuse_unsorted
from l4sim.specs.dtypes import BF16_BYTES
from l4sim.specs.gpu import GPU

FloatArray = NDArray[np.float64]

# Output tiles (rows, columns) of cuBLAS's kernels, small rows by swapped operands, and its splits of k over blocks.
_TILES = (
    (16, 64),
    (16, 128),
    (32, 64),
    (32, 128),
    (64, 64),
    (64, 128),
    (64, 256),
    (128, 64),
    (128, 128),
    (128, 256),
    (256, 128),
)
# cuBLAS 13's further tiles on Hopper: apart, since older coefficients were fitted without them.
_WIDE_TILES = ((64, 192), (192, 64), (128, 192), (192, 128), (192, 192), (256, 192))
_K_SPLITS = (1, 2, 4, 8)
# Octaves in m, n and k over which cuBLAS's choices of kernel resemble one another; ours, by cross-validation on H200.
_REACH_OCTAVES = (4.0, 1.0, 1.0)
_PARTIAL_BYTES = 4


@dataclass(frozen=True, slots=True)
class Correction:
    """Logarithms of measured over modelled time on a grid, bilinear between its knots and constant beyond them."""

    x_knots: NonNegatives
    y_knots: NonNegatives
    values: tuple[Numbers, ...]
    """Shape ``[x_knots][y_knots]``."""

    def __post_init__(self) -> None:
        refuse_unsorted("x_knots", self.x_knots)
        refuse_unsorted("y_knots", self.y_knots)
        rows, columns = len(self.x_knots), len(self.y_knots)
        if len(self.values) != rows or any(len(row) != columns for row in self.values):
            raise InputError(f"values must be {rows} lists of {columns} numbers")

    def log_factor(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """The correction at points ``(x, y)``, both of shape ``[points]``."""
        weighted: FloatArray = hat(x, self.x_knots) @ np.array(self.values) * hat(y, self.y_knots)
        return np.asarray(weighted.sum(axis=1))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Logarithms of measured over modelled time, interpolated (kriging) from the measured products nearest to one."""

    m: NonNegatives
    n: NonNegatives
    k: NonNegatives
    weights: Numbers
    """Of each measured product, fitted with ``nearness``."""

    def __post_init__(self) -> None:
        lengths = [len(column) for column in (self.m, self.n, self.k, self.weights)]
        if len(set(lengths)) != 1:
            raise InputError(f"lists of {', '.join(map(str, lengths))} numbers, accepted are as many in each")

    def log_factor(self, m: FloatArray, n: FloatArray, k: FloatArray) -> FloatArray:
        """The correction of products, of shape ``[points]``; 0 far from all that was measured."""
        return np.asarray(nearness((m, n, k), (self.m, self.n, self.k)) @ np.array(self.weights))


@dataclass(frozen=True, slots=True)
class GemmCoefficients:
    """What is fitted for one GPU and its version of cuBLAS."""

    launch_s: NonNegative
    """Seconds that the smallest product takes."""
    bandwidth_fraction: Positive
    """Reached fraction of the peak memory bandwidth."""
    tensor_core_fraction: Positive
    """Reached fraction of the peak arithmetic rate."""
    wave_s: NonNegative
    """Seconds that a wave of blocks takes besides its tiles' products."""
    sm_stream_bytes_per_s: Positive
    """Rate at which one SM can be fed with operands."""
    split_k_s: NonNegative
    """Seconds that reducing a split k adds, besides the partial results' bytes."""
    overlap_exponent: Positive
    """How well memory and arithmetic overlap: 1 adds their times, infinity takes the longer."""
    by_output_and_depth: Correction | None = None
    """Over (log2 of m x n, log2 of k): how cuBLAS's choice of split depends on work and depth."""
    by_shape: Correction | None = None
    """Over (log2 of m, log2 of n): how its choice of tile depends on the output's shape."""
    by_neighbours: Neighbours | None = None
    """How its choices of kernel depend on a model's own shapes."""
    wide_tiles: bool = False
    """Whether cuBLAS has tiles of 192 rows or columns, as its version 13 does."""


def hat(x: FloatArray, knots: tuple[float, ...]) -> FloatArray:
    """Weights of linear interpolation between knots, shape ``[points, knots]``; clamped at both ends."""
    return np.stack([np.interp(x, knots, unit) for unit in np.eye(len(knots))], axis=-1)


def nearness(ones: tuple[ArrayLike, ...], others: tuple[ArrayLike, ...]) -> FloatArray:
    """How alike products (m, n, k) are, from 1 for the same down to 0, shape ``[ones, others]``."""
    octaves: FloatArray = np.zeros((np.size(ones[0]), np.size(others[0])))
    for one, other, reach in zip(ones, others, _REACH_OCTAVES, strict=True):
        octaves += np.abs(np.log2(one)[:, None] - np.log2(other)) / reach
    return np.asarray(np.exp(-octaves))


def gemm_bytes(m: ArrayLike, n: ArrayLike, k: ArrayLike) -> FloatArray:
    """Bytes that an ``[m, k] x [k, n]`` product moves at least: both operands and the result, once each."""
    m, n, k = (np.asarray(size, dtype=np.float64) for size in (m, n, k))
    return np.asarray(BF16_BYTES * (n * k + m * k + m * n))


def gemm_s(m: ArrayLike, n: ArrayLike, k: ArrayLike, gpu: GPU, coefficients: GemmCoefficients) -> FloatArray:
    """Seconds of bf16 products ``[m, k] x [k, n]``, broadcast to shape ``[points]``; m >= 1.

    The best over cuBLAS's tiles and splits of waves x (tile time + wave overhead), joined with the time that the
    bytes take by a p-norm, after a launch; then the correction. Source: ours, fitted to nvidia's aiconfigurator.
    """
    m, n, k = np.broadcast_arrays(*(np.atleast_1d(np.asarray(size, dtype=np.float64)) for size in (m, n, k)))
    memory_s = gemm_bytes(m, n, k) / (gpu.memory_bytes_per_s * coefficients.bandwidth_fraction)
    seconds = coefficients.launch_s + _overlapped_s(
        memory_s, _blocks_s(m, n, k, gpu, coefficients), coefficients.overlap_exponent
    )
    if coefficients.by_output_and_depth is not None:
        seconds = seconds * np.exp(coefficients.by_output_and_depth.log_factor(np.log2(m * n), np.log2(k)))
    if coefficients.by_shape is not None:
        seconds = seconds * np.exp(coefficients.by_shape.log_factor(np.log2(m), np.log2(n)))
    if coefficients.by_neighbours is not None:
        seconds = seconds * np.exp(coefficients.by_neighbours.log_factor(m, n, k))
    return np.asarray(seconds)


def _blocks_s(m: FloatArray, n: FloatArray, k: FloatArray, gpu: GPU, coefficients: GemmCoefficients) -> FloatArray:
    """Seconds of the fastest tiling, were memory infinitely fast."""
    sm_flops = gpu.bf16_flops * coefficients.tensor_core_fraction / gpu.sms
    best = np.full(m.shape, np.inf)
    for rows, columns in _TILES + _WIDE_TILES * coefficients.wide_tiles:
        # Per unit of depth, a tile computes rows x columns products and reads rows + columns operands.
        depth_s = max(2 * rows * columns / sm_flops, BF16_BYTES * (rows + columns) / coefficients.sm_stream_bytes_per_s)
        tiles = np.ceil(m / rows) * np.ceil(n / columns)
        for splits in _K_SPLITS:
            seconds = np.ceil(tiles * splits / gpu.sms) * (k / splits * depth_s + coefficients.wave_s)
            if splits > 1:
                partials_s = splits * m * n * _PARTIAL_BYTES / (2 * gpu.memory_bytes_per_s)
                seconds = seconds + coefficients.split_k_s + partials_s
            best = np.minimum(best, seconds)
    return best


def _overlapped_s(memory_s: FloatArray, blocks_s: FloatArray, exponent: float) -> FloatArray:
    """The p-norm of both times; computed relative to the longer one, since powers of small numbers underflow."""
    longer, shorter = np.maximum(memory_s, blocks_s), np.minimum(memory_s, blocks_s)
    return np.asarray(longer * (1 + (shorter / longer) ** exponent) ** (1 / exponent))
