"""Reading traces of any known format, recognised by its fields."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from l4sim.errors import InputError
from l4sim.workload import own_parquet
from l4sim.workload.files import container, read_records, read_table, table_records
from l4sim.workload.formats import named, recognise, texts, unused_fields
from l4sim.workload.formats.base import Options
from l4sim.workload.parsed import to_trace
from l4sim.workload.raw_records import UNITS_PER_S, RawRecords, integers
from l4sim.workload.tokens import token_counter
from l4sim.workload.trace import Trace
from l4sim.workload.transform import dejitter, head

_PRIORITY = "priority"
"""A field that a record of any format may have, where each is one request: vLLM's priority, a whole number."""


def load_trace(
    path: str | PathLike[str],
    *,
    format: str = "auto",
    time_unit: str = "auto",
    tokens: str = "estimate",
    trace_block_size: int | None = None,
    dejitter_s: float | None = None,
    limit: int | None = None,
) -> Trace:
    """The trace in ``path`` (.csv, .jsonl, .json or .parquet, each also .gz).

    ``format`` is one of `l4sim.workload.formats.FORMATS`, or ``"auto"`` to recognise it. ``time_unit`` (ns, us, ms, s)
    overrides the format's own for numeric times and delays. ``tokens`` says how texts are counted: ``"estimate"``, or a
    tokenizer's name or path. ``trace_block_size`` is how many tokens an id of a prefix block stands for, where the file
    neither says nor lets it be told from lengths. ``dejitter_s`` spreads arrivals over a coarse clock's tick; ``limit``
    keeps the first rows. Arrivals count from the first. ``Trace.warnings`` lists what was changed or guessed.

    Raises `InputError` for anything that is not accepted, naming file, line and field.
    """
    if time_unit != "auto" and time_unit not in UNITS_PER_S:
        raise InputError(f"unknown time unit '{time_unit}'; known are auto, {', '.join(UNITS_PER_S)}")
    if trace_block_size is not None and trace_block_size < 1:
        raise InputError(f"a prefix block must have at least 1 token, not {trace_block_size}")
    reading = _Reading(None if time_unit == "auto" else time_unit, tokens, trace_block_size)
    trace = _load(Path(path), format, reading)
    if dejitter_s is not None:
        trace = dejitter(trace, dejitter_s, seed=0)
    return trace if limit is None else head(trace, limit)


class _Reading(NamedTuple):
    """How the user wants a file to be read, None for the format's own."""

    time_unit: str | None
    tokens: str
    block_tokens: int | None


def _load(path: Path, format_name: str, reading: _Reading) -> Trace:
    if format_name not in ("auto", own_parquet.NAME):
        named(format_name)
    name = path.name.split(".")[0]
    if container(path) == ".parquet":
        table = read_table(path)
        if own_parquet.is_own(table):
            if format_name not in ("auto", own_parquet.NAME) or reading.time_unit is not None:
                raise InputError(f"{path}: l4sim's own parquet takes neither a format nor a time unit")
            if reading.block_tokens is not None:
                raise InputError(f"{path}: l4sim's own parquet says itself what its prefix blocks are")
            return own_parquet.from_table(table, path)
        return _parse(table_records(path, table), name, format_name, reading)
    return _parse(read_records(path), name, format_name, reading)


def _parse(records: RawRecords, name: str, format_name: str, reading: _Reading) -> Trace:
    kind = recognise(records) if format_name == "auto" else named(format_name)
    time_unit, tokens, block_tokens = reading
    if tokens != "estimate" and kind not in texts.FORMATS:
        raise InputError(f"{records.path}: {kind.name} holds token counts, a tokenizer ({tokens}) is not accepted")
    parsed = kind.read(records, Options(time_unit, token_counter(tokens), block_tokens))
    if not len(parsed.prompt_tokens):
        raise InputError(f"{records.path}: the file holds no requests")
    if time_unit is not None and parsed.arrival_s is None:
        raise InputError(f"{records.path}: {kind.name} has no arrival times, a time unit ({time_unit}) is not accepted")
    if block_tokens is not None and (parsed.prefix is None or parsed.prefix.block_tokens != block_tokens):
        has = "no ids of prefix blocks" if parsed.prefix is None else "prefix blocks of its own size"
        raise InputError(f"{records.path}: {kind.name} has {has}, a block size ({block_tokens}) is not accepted")
    unused = unused_fields(records, kind)
    if _PRIORITY in unused and len(records) == len(parsed.prompt_tokens):
        # Other files' priorities are words: those are named as what is not used.
        with suppress(InputError):
            priority = integers(records, _PRIORITY, -(2**31), 2**31 - 1, _PRIORITY, missing=0)
            parsed = replace(parsed, priority=priority)
            unused.remove(_PRIORITY)
    if unused:
        listed = ", ".join(unused)
        parsed = replace(parsed, warnings=(*parsed.warnings, f"fields that {kind.name} does not use: {listed}"))
    return to_trace(parsed, name)
