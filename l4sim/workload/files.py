"""Reading the records of trace files: CSV, JSON lines, JSON and parquet, each also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4sim.errors import InputError
from l4sim.workload.raw_records import RawRecords, from_objects

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

SUFFIXES = (".csv", ".jsonl", ".json", ".parquet")
"""What a trace file may end with, each also followed by ``.gz``."""


def container(path: Path) -> str:
    """The suffix that says how ``path`` is to be read, ``.gz`` left out. Raises `InputError` if it says nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if not suffixes or suffixes[-1] not in SUFFIXES:
        raise InputError(f"{path}: a trace file ends with {', '.join(SUFFIXES)}, each also with .gz")
    return suffixes[-1]


def read_records(path: Path) -> RawRecords:
    """The records of a CSV, JSON lines or JSON file. Raises `InputError` if it cannot be read as what it is named."""
    text = _decode(path, read_bytes(path))
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    records = _csv_records(path, text) if container(path) == ".csv" else _json_records(path, text)
    if not len(records):
        raise InputError(f"{path}: the file holds no records")
    return records


def read_table(path: Path) -> pa.Table:
    """A parquet file as an Arrow table. Raises `InputError` if it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        return pq.read_table(io.BytesIO(read_bytes(path)))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file ({_first_line(error)})") from None


def table_records(path: Path, table: pa.Table) -> RawRecords:
    """The rows of a foreign parquet file as records; ``number`` counts rows from 1."""
    if not table.num_rows:
        raise InputError(f"{path}: the file holds no records")
    return RawRecords(str(path), table.to_pydict(), range(1, table.num_rows + 1), unit="row")


def read_bytes(path: Path) -> bytes:
    """The contents of ``path``, decompressed if it ends with ``.gz``. Raises `InputError` if that fails."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: broken or truncated gzip ({_first_line(error)})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text") from None


def _csv_records(path: Path, text: str) -> RawRecords:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        numbered = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None
    for field in header:
        if header.count(field) > 1:
            raise InputError(f"{path}, line 1: column '{field}' occurs twice")
    for line, row in numbered:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {len(row)} cells where the header names {len(header)} columns")
    cells = list(zip(*(row for _, row in numbered), strict=True)) or [()] * len(header)
    return RawRecords(str(path), dict(zip(header, cells, strict=True)), [line for line, _ in numbered], text=True)


def _json_records(path: Path, text: str) -> RawRecords:
    # A JSON file may hold an array, one object over many lines, or JSON lines under another name.
    if text.lstrip().startswith("["):
        values = list(_array_values(path, text))
    elif container(path) == ".json" and not _is_json(text.split("\n", 1)[0]):
        values = [(1, _loads(path, text, 1))]
    else:
        values = [(line, _loads(path, row, line)) for line, row in enumerate(text.split("\n"), 1) if row.strip()]
    for line, value in values:
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {line}: expected a JSON object, not {type(value).__name__}")
    return from_objects(str(path), [value for _, value in values], [line for line, _ in values])


def _loads(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(_json_error(path, line + error.lineno - 1, error)) from None
    except RecursionError:
        raise InputError(f"{path}, line {line}: JSON nested too deeply") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _array_values(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON array with the line that each begins on, which `json.loads` would not tell."""
    decoder = json.JSONDecoder()
    position, line = text.index("[") + 1, text.count("\n", 0, text.index("[")) + 1
    closed = False
    while not closed:
        start = _skip_space(text, position)
        line += text.count("\n", position, start)
        if text[start : start + 1] == "]":
            end = start
        else:
            try:
                value, end = decoder.raw_decode(text, start)
            except json.JSONDecodeError as error:
                raise InputError(_json_error(path, error.lineno, error)) from None
            yield line, value
            line += text.count("\n", start, end)
        position = _skip_space(text, end)
        line += text.count("\n", end, position)
        separator = text[position : position + 1]
        if separator not in (",", "]"):
            raise InputError(f"{path}, line {line}: the JSON array ends without ']' (truncated?)")
        closed = separator == "]"
        position += 1
    end = _skip_space(text, position)
    if end < len(text):
        line += text.count("\n", position, end)
        raise InputError(f"{path}, line {line}: text after the end of the JSON array")


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _json_error(path: Path, line: int, error: json.JSONDecodeError) -> str:
    return f"{path}, line {line}: not valid JSON ({error.msg} at column {error.colno})"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
