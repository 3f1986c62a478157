"""Measured points: tables of positive numbers, as CSV (plain or gzipped) or Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError

HALVES = ("bfloat16", "float16", "bf16", "fp16", "half")
"""What tables call numbers of two bytes."""


def read_points(
    path: Path,
    columns: Sequence[str],
    only: Mapping[str, str] | None = None,
    or_zero: Sequence[str] = (),
    among: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Read columns of numbers above 0, each of shape ``[rows]``; ``only`` keeps rows whose text columns equal it.

    Columns named in ``or_zero`` are read as well, and may hold 0. ``among`` keeps rows whose column holds one of the
    given texts, where the table has such a column.

    Raises:
        InputError: no such file, a missing column, a value that is not a number above 0 (with its line), no rows.
    """
    wanted = dict(only or {})
    names = (*columns, *or_zero)
    values: list[list[float]] = []
    with _open(path) as file:
        reader = csv.DictReader(file)
        _need(path, (*names, *wanted), reader.fieldnames)
        accepted = {name: texts for name, texts in (among or {}).items() if name in (reader.fieldnames or ())}
        values.extend(
            [number(row[name], f"{path}, line {reader.line_num}: {name}", or_zero=name in or_zero) for name in names]
            for row in reader
            if all(row[name] == text for name, text in wanted.items())
            and all(row[name] in texts for name, texts in accepted.items())
        )
    if not values:
        filters = [*wanted.items(), *((name, " or ".join(texts)) for name, texts in accepted.items())]
        raise InputError(f"{path}: no rows" + "".join(f" with {name} {text}" for name, text in filters))
    return dict(zip(names, np.array(values).T, strict=True))


def distinct(path: Path, column: str) -> tuple[str, ...]:
    """The texts in a column, each once, in order of appearance.

    Raises:
        InputError: no such file or column.
    """
    with _open(path) as file:
        reader = csv.DictReader(file)
        _need(path, (column,), reader.fieldnames)
        return tuple(dict.fromkeys(row[column] for row in reader))


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table as texts by column, each with where it stands (``file, line N``).

    Raises:
        InputError: no such file, a missing column, a row that is too short.
    """
    with _open(path) as file:
        reader = csv.DictReader(file)
        _need(path, columns, reader.fieldnames)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            missing = [name for name in columns if row[name] is None]
            if missing:
                raise InputError(f"{where}: {missing[0]} is missing, the row ends before it")
            yield where, row


def number(text: str | None, where: str, *, or_zero: bool = False) -> float:
    """A finite number above 0, or 0 where that is accepted too.

    Raises:
        InputError: anything else, naming ``where``.
    """
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
        raise InputError(f"{where} is {text!r}, accepted is a number " + (">= 0" if or_zero else "above 0"))
    return value


def find_file(folder: Path, name: str) -> Path:
    """A file of a folder, plain or gzipped.

    Raises:
        InputError: neither is there.
    """
    for path in _spellings(folder, name):
        if path.is_file():
            return path
    raise InputError(f"{folder}: neither {name} nor {name}.gz")


def has_file(folder: Path, name: str) -> bool:
    """Whether a folder has a file, plain or gzipped."""
    return any(path.is_file() for path in _spellings(folder, name))


def _spellings(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / name, folder / f"{name}.gz"


def _need(path: Path, columns: Sequence[str], found: Sequence[str] | None) -> None:
    missing = [name for name in columns if name not in (found or ())]
    if missing:
        raise InputError(f"{path}: column {missing[0]} is missing, found are {', '.join(found or ())}")


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".parquet":
        yield _csv_of_parquet(path)
    elif path.suffix == ".gz":
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            yield file
    else:
        with path.open(newline="", encoding="utf-8") as file:
            yield file


def _csv_of_parquet(path: Path) -> TextIO:
    """The table as CSV text, so that everything else need not know; line n is the table's row n - 1."""
    from pandas import read_parquet

    try:
        text = read_parquet(path).to_csv(index=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    return io.StringIO(text, newline="")
