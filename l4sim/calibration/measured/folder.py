"""A folder of points that ``l4sim profile measure`` wrote: what was measured, and its tables as columns.

``measured.json`` names the GPU, where the points come from and the kernel that serves; one CSV per operator holds one
point per row, seconds in ``median_s``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill
from l4sim.calibration.fits.errors import FloatArray
from l4sim.calibration.points.batches import BatchPoint, read_batch_points, read_chunks, read_contexts
from l4sim.calibration.points.tables import number, read_points, read_rows
from l4sim.cost.captured import NONE_CAPTURED, Captured
from l4sim.cost.operators import SIZES, OperatorSizes
from l4sim.cost.profile import Provenance
from l4sim.errors import InputError
from l4sim.json_files import Positive, Text, read_json
from l4sim.specs.gpu import GPU

MEASURED = "measured.json"
MODEL_COLUMNS = ("model", *SIZES)
"""What tells one model's rows from another's, wherever an operator depends on more than its own sizes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured where: ``measured.json``."""

    name: Text
    gpu: GPU
    provenance: Provenance
    served_kernel: Text
    """The attention kernel of whole iterations, the profile's default."""
    captured: Captured = NONE_CAPTURED
    """What the engine of the iterations runs as CUDA graphs."""
    reference_s: Positive | None = None
    """Seconds of the reference iteration at the speed to which all points are converted; None: they are not."""


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A measured model: all that a single layer depends on."""

    model: str
    sizes: OperatorSizes


@dataclass(frozen=True, slots=True)
class IterationPoint:
    """One whole iteration of the live engine."""

    layers: int
    batch: Batch
    seconds: float


def is_measured(folder: Path) -> bool:
    """Whether a folder holds measured points."""
    return (folder / MEASURED).is_file()


def read_measured(folder: Path) -> Measured:
    """What was measured in a folder.

    Raises:
        InputError: no ``measured.json``, or a field in it that is missing, unknown or invalid.
    """
    return read_json(folder / MEASURED, Measured)


def read_attention(folder: Path, gpu: GPU) -> list[BatchPoint]:
    """The attention points of all kernels and models.

    Raises:
        InputError: as ``read_batch_points``.
    """
    return read_batch_points(folder / "attention.csv", gpu.sms)


def read_columns(folder: Path, table: str, columns: tuple[str, ...]) -> dict[str, FloatArray]:
    """Columns of numbers above 0 of one operator's table, ``median_s`` among them, each of shape ``[points]``.

    Raises:
        InputError: as ``read_points``.
    """
    return read_points(folder / f"{table}.csv", (*columns, "median_s"))


def read_by_model(
    folder: Path, table: str, columns: tuple[str, ...]
) -> dict[ModelKey, tuple[NDArray[np.int64], FloatArray]]:
    """Whole-numbered columns (shape ``[points, columns]``) and seconds (``[points]``) of a table, by model.

    Of a point that was measured several times, the median.

    Raises:
        InputError: no such file, a missing column, a size below 0 or a time that is not above 0 (with its line).
    """
    path = folder / f"{table}.csv"
    rows = [
        (
            _key(where, row),
            [
                *(number(row[name], f"{where}: {name}", or_zero=True) for name in columns),
                number(row["median_s"], f"{where}: median_s"),
            ],
        )
        for where, row in read_rows(path, (*MODEL_COLUMNS, *columns, "median_s"))
    ]
    found = {}
    for key, own in _by_key(rows):
        seconds: defaultdict[tuple[float, ...], list[float]] = defaultdict(list)
        for *sizes, taken_s in own:
            seconds[tuple(sizes)].append(taken_s)
        found[key] = np.array(list(seconds)).astype(np.int64), np.array(list(map(median, seconds.values())))
    return found


def read_iterations(folder: Path) -> dict[ModelKey, list[IterationPoint]]:
    """Whole iterations by model, each once: of several measurements, the median; empty where there are none.

    Raises:
        InputError: a missing column, or a value that cannot be read (with its line).
    """
    path = folder / "iterations.csv"
    if not path.is_file():
        return {}
    columns = (*MODEL_COLUMNS, "layers", "context_tokens", "chunks", "median_s")
    found: dict[ModelKey, list[IterationPoint]] = {}
    for key, rows in _by_key([(_key(where, row), (where, row)) for where, row in read_rows(path, columns)]):
        points: dict[tuple[str, ...], list[IterationPoint]] = {}
        for where, row in rows:
            what = (row["layers"], row["context_tokens"], row["chunks"])
            points.setdefault(what, []).append(_iteration(where, row))
        found[key] = [replace(own[0], seconds=median(point.seconds for point in own)) for own in points.values()]
    return found


def _iteration(where: str, row: dict[str, str]) -> IterationPoint:
    contexts = np.array(read_contexts(row["context_tokens"], f"{where}: context_tokens"), dtype=np.int64)
    chunks = read_chunks(row["chunks"], f"{where}: chunks")
    batch = Batch(contexts, int(contexts.sum()), tuple(Prefill(*chunk) for chunk in chunks))
    layers = int(number(row["layers"], f"{where}: layers"))
    return IterationPoint(layers, batch, number(row["median_s"], f"{where}: median_s"))


def _key(where: str, row: dict[str, str]) -> ModelKey:
    if not row["model"]:
        raise InputError(f"{where}: model is empty")
    return ModelKey(row["model"], OperatorSizes(*(int(number(row[name], f"{where}: {name}")) for name in SIZES)))


def _by_key(rows: list[tuple[ModelKey, Any]]) -> Iterator[tuple[ModelKey, list[Any]]]:
    ordered = sorted(rows, key=lambda row: row[0].model)
    for key, own in groupby(ordered, key=lambda row: row[0]):
        yield key, [value for _, value in own]
