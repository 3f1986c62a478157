"""Operators' tables on disk: one compressed file beside ``profile.json``, which says what is in it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.tables.table import FloatArray, OperatorTable
from l4sim.errors import InputError
from l4sim.json_files import Text

TABLES_FILE = "tables.npz"

# Seconds are kept as logarithms in steps of a twentieth of a percent: far finer than they were measured.
_LEAST_S, _STEP = 1e-7, 5e-4
_NOT_MEASURED = 0
_MOST_CODE = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class StoredTable:
    """What ``profile.json`` says of one operator's table."""

    kinds: Mapping[str, tuple[Text, ...]]
    """By column the texts that its numbers in the file stand for."""
    sizes: tuple[Text, ...]
    axes: Mapping[str, tuple[int, ...]]
    rows: int
    """Measured points that were read."""
    left_out: Mapping[str, int]
    """How many of them were not taken, by reason."""
    source: Text
    engine: Text
    device: Text
    errors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredTables:
    """The section ``tables`` of a ``profile.json``."""

    sha256: Text
    """Of the file of seconds."""
    operators: Mapping[str, StoredTable]


def read_tables(stored: StoredTables, path: Path) -> dict[str, OperatorTable]:
    """The tables of a profile by operator, from their file.

    Raises:
        InputError: no such file, or another one than ``profile.json`` was written with.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != stored.sha256:
        raise InputError(f"{path}: it is not the file that profile.json was written with (SHA-256 differs)")
    if stored.sha256 not in _READ:
        if len(_READ) >= _MOST_READ:
            _READ.clear()
        _READ[stored.sha256] = _tables(stored, content, path)
    return _READ[stored.sha256]


# A process may load a profile for each of thousands of runs; what is made of a table is found again by the table.
_READ: dict[str, dict[str, OperatorTable]] = {}
_MOST_READ = 32


def _tables(stored: StoredTables, content: bytes, path: Path) -> dict[str, OperatorTable]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {
                name: _table(name, about, arrays[f"{name}.rows"], arrays[f"{name}.codes"])
                for name, about in stored.operators.items()
            }
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of tables ({error})") from None


def _table(name: str, about: StoredTable, rows: NDArray[Any], steps: NDArray[np.uint16]) -> OperatorTable:
    columns = rows.T.astype(np.int64)
    count = len(about.kinds)
    return OperatorTable(
        name,
        {
            kind: np.array(labels)[column]
            for (kind, labels), column in zip(about.kinds.items(), columns[:count], strict=True)
        },
        dict(zip(about.sizes, columns[count:], strict=True)),
        {axis: np.array(points, dtype=np.int64) for axis, points in about.axes.items()},
        decoded(steps),
        about.source,
        about.engine,
        about.errors,
    )


def encoded(seconds: FloatArray) -> NDArray[np.uint16]:
    """Seconds as the file has them: logarithms in steps, each as the difference to the one before on the last axis."""
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.round(np.log(seconds / _LEAST_S) / _STEP) + 1
    codes = np.where(np.isfinite(seconds), np.clip(steps, 1, _MOST_CODE), _NOT_MEASURED).astype(np.uint16)
    return np.diff(codes, axis=-1, prepend=np.uint16(0)).astype(np.uint16)


def decoded(steps: NDArray[np.uint16]) -> FloatArray:
    """The seconds that ``encoded`` wrote, within half a step; of the same shape, NaN where nothing was measured."""
    codes = np.cumsum(steps, axis=-1, dtype=np.uint16)
    seconds = _LEAST_S * np.exp(_STEP * (codes.astype(np.float64) - 1))
    return np.where(codes == _NOT_MEASURED, np.nan, seconds)


def packed(tables: Mapping[str, OperatorTable]) -> tuple[bytes, dict[str, dict[str, tuple[str, ...]]]]:
    """The file of these tables, and by operator and kind the texts that its numbers stand for."""
    arrays: dict[str, NDArray[Any]] = {}
    texts: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, table in tables.items():
        texts[name], columns = {}, []
        for kind, values in table.kinds.items():
            labels, numbers = np.unique(values, return_inverse=True)
            texts[name][kind] = tuple(labels.tolist())
            columns.append(numbers.astype(np.int32))
        columns += [values.astype(np.int32) for values in table.sizes.values()]
        arrays[f"{name}.rows"] = np.stack(columns, axis=1)
        arrays[f"{name}.codes"] = encoded(table.seconds)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue(), texts
