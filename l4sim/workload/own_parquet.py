"""The project's own trace file: parquet with a `Trace`'s columns, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.trace import IntArray, PrefixBlocks, Trace

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

NAME = "l4sim"
"""What this format is called on the command line."""

_KEY = b"l4sim_trace"
_VERSION = 3
_COLUMNS = ("request_id", "arrival_s", "prompt_tokens", "output_tokens", "session", "after", "delay_s")


def to_table(trace: Trace) -> pa.Table:
    """The trace as an Arrow table: one row per request, the rest in the schema's metadata."""
    import pyarrow as pa

    columns = {name: pa.array(getattr(trace, name)) for name in _COLUMNS}
    about = {
        "version": _VERSION,
        "name": trace.name,
        "warnings": trace.warnings,
        "block_tokens": None,
        "concurrency": trace.concurrency,
    }
    if trace.prefix is not None:
        offsets = pa.array(trace.prefix.offsets.astype(np.int64))
        columns["prefix_ids"] = pa.LargeListArray.from_arrays(offsets, pa.array(trace.prefix.ids))
        if trace.prefix.ends is not None:
            columns["prefix_ends"] = pa.LargeListArray.from_arrays(offsets, pa.array(trace.prefix.ends))
        about["block_tokens"] = trace.prefix.block_tokens
    if trace.priority is not None:
        columns["priority"] = pa.array(trace.priority)
    return pa.table(columns).replace_schema_metadata({_KEY: json.dumps(about).encode()})


def is_own(table: pa.Table) -> bool:
    """Whether `to_table` made this table."""
    return _KEY in (table.schema.metadata or {})


def from_table(table: pa.Table, path: Path) -> Trace:
    """The trace that `to_table` was given. Raises `InputError` if the file no longer holds one."""
    about = json.loads(table.schema.metadata[_KEY])
    if not 1 <= about["version"] <= _VERSION:  # 1 had no blocks of different sizes, 2 no concurrency
        raise InputError(f"{path}: written in version {about['version']} of the l4sim format; expected 1 to {_VERSION}")
    if not table.num_rows:
        raise InputError(f"{path}: the file holds no requests")
    for name in _COLUMNS:
        if name not in table.column_names:
            raise InputError(f"{path}: column '{name}' is missing")
    columns = {name: table.column(name).to_numpy() for name in _COLUMNS[1:]}
    prefix = None
    if "prefix_ids" in table.column_names:
        offsets, ids = _ragged(table, "prefix_ids")
        ends = _ragged(table, "prefix_ends")[1] if "prefix_ends" in table.column_names else None
        prefix = PrefixBlocks(ids, offsets, about["block_tokens"], ends)
    trace = Trace(
        name=about["name"],
        request_id=tuple(table.column("request_id").to_pylist()),
        prefix=prefix,
        priority=table.column("priority").to_numpy() if "priority" in table.column_names else None,
        concurrency=about.get("concurrency"),
        warnings=tuple(about["warnings"]),
        **columns,
    )
    _check(trace, path)
    return trace


def _ragged(table: pa.Table, name: str) -> tuple[IntArray, IntArray]:
    """Offsets and values of a column of lists."""
    lists = table.column(name).combine_chunks()
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0], lists.values.to_numpy()[offsets[0] : offsets[-1]]


def _check(trace: Trace, path: Path) -> None:
    """Raise `InputError` for values that a `Trace` cannot have."""
    is_open = trace.after < 0
    rules = {
        "prompt_tokens": trace.prompt_tokens >= 1,
        "output_tokens": trace.output_tokens >= 1,
        "after": trace.after < np.arange(len(trace)),
        "arrival_s": np.where(is_open, trace.arrival_s >= 0, np.isnan(trace.arrival_s)),
        "delay_s": np.where(is_open, np.isnan(trace.delay_s), trace.delay_s >= 0),
    }
    for field, holds in rules.items():
        wrong = np.flatnonzero(~holds)
        if len(wrong):
            value = getattr(trace, field)[wrong[0]]
            raise InputError(f"{path}, row {wrong[0] + 1}, field '{field}': {value} is not accepted in a trace")
