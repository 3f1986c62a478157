"""Seconds of matrix products from a table, and by a stated rule where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from l4sim.cost.tables.table import FloatArray, IntArray, OperatorTable
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.gpu import GPU

GEMM = "gemm"
"""The table's name: kinds ``dtype``, sizes ``n, k``, over ``tokens``."""

BF16, FP8, FP8_BLOCK, NVFP4 = "bfloat16", "fp8", "fp8_block", "nvfp4"

# Formats of weights, and the rows that stand for them: the first is what they are, others are scaled from.
_ROWS: Mapping[str, tuple[str, ...]] = {
    "bfloat16": (BF16,),
    "float16": (BF16,),
    "float32": (BF16,),
    "fp8": (FP8, FP8_BLOCK, BF16),
    "fp8-block128": (FP8_BLOCK, FP8, BF16),
    "fp8-block32": ("", FP8_BLOCK, FP8, BF16),
    "mxfp8": ("", FP8_BLOCK, FP8, BF16),
    "nvfp4": (NVFP4, BF16),
    "mxfp4": ("", NVFP4, BF16),
    "int8": ("", FP8, BF16),
    "int4": ("", BF16),
    "int4-g32": ("", BF16),
    "int4-g64": ("", BF16),
    "int4-g128": ("", BF16),
}
_FORMATS = {BF16: "bfloat16", FP8: "fp8", FP8_BLOCK: "fp8-block128", NVFP4: "nvfp4"}


class Seconds(NamedTuple):
    """Seconds of an operator by tokens, and whether they were measured or scaled from the nearest that was."""

    seconds: FloatArray
    measured: bool


def flops_of(gpu: GPU, weights: str) -> float:
    """Peak rate at which a GPU multiplies weights of a format: as its activations then are, else in 16 bits."""
    if weights in ("fp8", "fp8-block128", "fp8-block32", "mxfp8", "int8"):
        return gpu.fp8_flops or gpu.bf16_flops
    return (gpu.fp4_flops or gpu.bf16_flops) if weights == "nvfp4" else gpu.bf16_flops


def roofline_s(m: IntArray, n: int, k: int, weights: str, gpu: GPU) -> FloatArray:
    """The least seconds of products ``[m, k] x [k, n]``, of the shape of ``m``: bytes or arithmetic at their peaks.

    Activations are read as they are multiplied and written in 16 bits.
    """
    rows = np.asarray(m, dtype=np.float64)
    activations = 1 if flops_of(gpu, weights) > gpu.bf16_flops else 2
    moved = size_bytes(n * k, weights) + rows * k * activations + 2 * rows * n
    return np.maximum(moved / gpu.memory_bytes_per_s, 2 * rows * n * k / flops_of(gpu, weights))


@dataclass(frozen=True, slots=True)
class _Grid:
    """Rows of one format by ``(n, k)``, and the values of n and k that are crossed."""

    row: Mapping[tuple[int, int], int]
    n: IntArray
    k: IntArray


class Products:
    """What a table tells of products of any shape and format."""

    def __init__(self, table: OperatorTable, gpu: GPU) -> None:
        self._table, self._gpu = table, gpu
        self._grids = {str(dtype): self._grid(str(dtype)) for dtype in np.unique(table.kinds["dtype"])}

    def _grid(self, dtype: str) -> _Grid:
        (rows,) = np.nonzero(self._table.kinds["dtype"] == dtype)
        n, k = self._table.sizes["n"][rows], self._table.sizes["k"][rows]
        row = {(int(one), int(other)): int(index) for one, other, index in zip(n, k, rows, strict=True)}
        return _Grid(row, _crossed(n), _crossed(k))

    def seconds(self, weights: str, n: int, k: int, tokens: IntArray) -> Seconds:
        """Seconds of products ``[tokens, k] x [k, n]`` of weights in a format, of the shape of ``tokens``.

        Between four measured shapes linear in n and in k; held-out errors stand in the profile. Beyond the grid, or
        in a format that was not measured, the nearest measured product times the ratio of rooflines: not measured.
        """
        known = _ROWS[weights]
        dtype = next(each for each in known if each in self._grids)
        within, measured = self.of_dtype(dtype, n, k, tokens)
        if dtype != known[0]:
            ratio = roofline_s(tokens, n, k, weights, self._gpu) / roofline_s(tokens, n, k, _FORMATS[dtype], self._gpu)
            return Seconds(within * ratio, False)
        return Seconds(within, measured)

    def of_dtype(self, dtype: str, n: int, k: int, tokens: IntArray) -> Seconds:
        """The same of rows of one format."""
        grid = self._grids[dtype]
        if (n, k) in grid.row:
            return Seconds(self._along(grid.row[n, k], tokens), True)
        shares_n, shares_k = _between(grid.n, n), _between(grid.k, k)
        corners = {(one, other): share * part for one, share in shares_n for other, part in shares_k}
        if corners and all(corner in grid.row for corner in corners):
            found = [share * self._along(grid.row[corner], tokens) for corner, share in corners.items()]
            return Seconds(np.sum(found, axis=0), True)
        near_n, near_k = min(grid.row, key=lambda shape: abs(np.log2(shape[0] / n)) + abs(np.log2(shape[1] / k)))
        weights = _FORMATS[dtype]
        ratio = roofline_s(tokens, n, k, weights, self._gpu) / roofline_s(tokens, near_n, near_k, weights, self._gpu)
        return Seconds(self._along(grid.row[near_n, near_k], tokens) * ratio, False)

    def _along(self, row: int, tokens: IntArray) -> FloatArray:
        return self._table.along(row, tokens)


def _crossed(values: IntArray) -> IntArray:
    """The values that at least half as many shapes have as the commonest."""
    found, counts = np.unique(values, return_counts=True)
    return np.asarray(found[2 * counts >= counts.max()])


def _between(values: IntArray, wanted: int) -> list[tuple[int, float]]:
    """A value's neighbours among ascending ones, with their shares of it; none where it is beyond the ends."""
    high = int(np.searchsorted(values, wanted))
    if high == len(values) or (high == 0 and values[0] != wanted):
        return []
    if values[high] == wanted:
        return [(wanted, 1.0)]
    first, last = int(values[high - 1]), int(values[high])
    share = (wanted - first) / (last - first)
    return [(first, 1 - share), (last, share)]


@lru_cache(maxsize=16)
def products_of(table: OperatorTable, gpu: GPU) -> Products:
    """The products that a table tells of, made once."""
    return Products(table, gpu)
