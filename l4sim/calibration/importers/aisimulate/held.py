"""How far a table's seconds are from points and shapes that were held out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from l4sim.calibration.fits.errors import Errors, FloatArray, errors
from l4sim.cost.tables.experts import EXPERTS, Mixtures
from l4sim.cost.tables.products import GEMM, Products
from l4sim.cost.tables.table import OperatorTable, along
from l4sim.specs.gpu import GPU

_SHAPES = 40
"""Shapes that are held out of the experts' table one by one: more would change the error by little (ours)."""
_SMALL = 256
"""Smaller products than this in n or k are a model's gates and the like, each with a shape of its own in the table."""


def held_out_errors(table: OperatorTable, gpu: GPU, flagged: int) -> Mapping[str, Errors]:
    """Errors by what was held out: every other point of an axis, or whole shapes of products and experts."""
    found = {f"between {axis}": _between(table, number, flagged) for number, axis in enumerate(table.axes, start=1)}
    if table.name == GEMM:
        found |= {f"between {size}": _between_products(table, gpu, size, flagged) for size in ("n", "k")}
    if table.name == EXPERTS:
        found["other shapes"] = _other_mixtures(table, gpu, flagged)
    return {what: each for what, each in found.items() if each.points}


def _between(table: OperatorTable, number: int, flagged: int) -> Errors:
    """Every other inner point of an axis, from those beside it."""
    points = list(table.axes.values())[number - 1]
    rows = np.moveaxis(table.seconds, number, -1).reshape(-1, len(points))
    predicted, measured = [], []
    for row in rows:
        (known,) = np.nonzero(np.isfinite(row))
        held = known[1:-1:2]
        if len(held):
            kept = row.copy()
            kept[held] = np.nan
            predicted.append(along(points, kept, points[held]))
            measured.append(row[held])
    return _errors(predicted, measured, flagged)


def _between_products(table: OperatorTable, gpu: GPU, size: str, flagged: int) -> Errors:
    """Every other of the crossed values of n, or of k, from the table without them."""
    values, counts = np.unique(table.sizes[size], return_counts=True)
    crossed = values[(2 * counts >= counts.max()) & (values >= _SMALL)]
    held = np.isin(table.sizes[size], crossed[1:-1:2])
    large = (table.sizes["n"] >= _SMALL) & (table.sizes["k"] >= _SMALL)
    products = Products(table.rows(~held), gpu)
    tokens = table.axes["tokens"]
    predicted, measured = [], []
    for row in np.flatnonzero(held & large):
        dtype, n, k = str(table.kinds["dtype"][row]), int(table.sizes["n"][row]), int(table.sizes["k"][row])
        found = products.of_dtype(dtype, n, k, tokens)
        known = np.isfinite(table.seconds[row])
        if found.measured and known.any():
            predicted.append(found.seconds[known])
            measured.append(table.seconds[row, known])
    return _errors(predicted, measured, flagged)


def _other_mixtures(table: OperatorTable, gpu: GPU, flagged: int) -> Errors:
    """Whole models' experts, from those of other models: what is estimated where a model was not measured."""
    shapes = np.stack([table.sizes[name] for name in ("hidden", "intermediate", "per_token", "experts")], axis=1)
    random = np.random.default_rng(0)
    tokens = table.axes["tokens"]
    predicted, measured = [], []
    for shape in np.unique(shapes, axis=0):
        own = (shapes == shape).all(axis=1)
        if own.all():
            continue
        mixtures, rows = Mixtures(table.rows(~own), gpu), np.flatnonzero(own)
        for row in random.choice(rows, size=min(len(rows), _SHAPES), replace=False):
            dtype = str(table.kinds["dtype"][row])
            if dtype in mixtures.dtypes:
                known = np.isfinite(table.seconds[row])
                predicted.append(mixtures.of_dtype(dtype, mixtures.shape_of(table, row), tokens).seconds[known])
                measured.append(table.seconds[row, known])
    return _errors(predicted, measured, flagged)


def _errors(predicted: list[FloatArray], measured: list[FloatArray], flagged: int) -> Errors:
    if not measured:
        return Errors(0, flagged, 0.0, 0.0, 0.0, 0.0)
    one, other = np.concatenate(predicted), np.concatenate(measured)
    known = np.isfinite(one)
    return replace(errors(one[known], other[known], flagged), flagged=flagged)
