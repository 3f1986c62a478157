"""Writing a comparison's tables and JSON files: the same input gives the same bytes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l4sim.errors import InputError
from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, REQUESTS, Run

if TYPE_CHECKING:
    from pandas import DataFrame


def write_run(out_dir: Path, config: Mapping[str, Any], runs: Sequence[Run], summary: Mapping[str, Any]) -> list[Path]:
    """Write ``config.json``, ``summary.json`` and the tables of all runs as Parquet; return the files written.

    ``boundaries.parquet`` is written if a run moved a boundary, and removed if an earlier call left one; files that are
    not ours stay as they are. Numbers that are missing (NaN) become null. Raises InputError if ``out_dir`` cannot be
    made or written to.
    """
    tables = {
        "requests": (REQUESTS, [run.requests for run in runs]),
        "iterations": (ITERATIONS, [run.iterations for run in runs]),
        "migrations": (MIGRATIONS, [run.migrations for run in runs]),
        "boundaries": (BOUNDARIES, [run.boundaries for run in runs]),
    }
    moved = any(len(run.boundaries) for run in runs)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        written = [write_json(out_dir / "config.json", config), write_json(out_dir / "summary.json", summary)]
        for name, (columns, frames) in tables.items():
            path = out_dir / f"{name}.parquet"
            if name == "boundaries" and not moved:
                path.unlink(missing_ok=True)
            else:
                written.append(_write_parquet(path, columns, frames))
    except OSError as error:
        raise unwritable(out_dir, error) from error
    return written


def unwritable(path: Path, error: OSError) -> InputError:
    """The InputError for an output folder or file that cannot be written."""
    return InputError(f"{path}: cannot be written ({error.strerror or error}); choose a folder that can")


def dump_json(value: Any) -> str:
    """JSON with sorted keys, shortest exact floats and null for NaN.

    Takes what a resolved configuration holds: mappings, sequences, dataclasses, paths and numpy scalars besides JSON's
    own. Raises ValueError for infinities and TypeError for anything else.
    """
    return json.dumps(_plain(value), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> Path:
    """Write a value as `dump_json` gives it."""
    path.write_text(dump_json(value), encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _write_parquet(path: Path, columns: Mapping[str, type], frames: Sequence[DataFrame]) -> Path:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    # Plain strings in the schema (a pandas category would surprise a reader); the file dictionary-encodes them anyway.
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    # Statistics and encodings beyond the texts' dictionaries cost more time than the bytes they save.
    texts = [name for name, kind in columns.items() if kind is str]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts, store_schema=False) as writer:
        for frame in frames:
            values = [
                pa.array(frame[name].to_numpy(), type=schema.field(name).type, from_pandas=True) for name in columns
            ]
            writer.write_table(pa.Table.from_arrays(values, schema=schema))
    return path
