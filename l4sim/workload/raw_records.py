"""The records of a trace file as raw values, and functions that read a column of them as tokens, times or labels.

Every refusal names the file, the line (1-based, as an editor shows it), the field, the value, and what is accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.trace import FloatArray, IntArray

MAX_TOKENS = 100_000_000
"""More tokens than this in one request is an error in the file, not a request (ours)."""

UNITS_PER_S = {"ns": 1_000_000_000, "us": 1_000_000, "ms": 1_000, "s": 1}
"""Names of time units that a user may give, and how many of each make a second."""

# What numpy may read as a date: it warns of time zones, and takes words such as "now".
_PLAIN_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?", re.ASCII)

MISSING = None
"""A field that a record lacks reads like JSON's null and like an empty CSV cell: as not given."""


@dataclass(frozen=True, slots=True)
class RawRecords:
    """The records of one file, as columns of equal length with values as they stand in the file."""

    path: str
    columns: Mapping[str, Sequence[Any]]
    """Raw values by field; ``MISSING`` where a record lacks the field."""
    numbers: Sequence[int]
    """The line (of a parquet file: the row) that each record begins on, 1-based."""
    text: bool = False
    """Whether values are text by nature (CSV), so that digits in text are a number."""
    unit: str = "line"
    entries: Sequence[str] | None = None
    """Where a record lies inside its line, such as ``requests[3]``, for records nested in others."""

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, field: str) -> Sequence[Any]:
        """The raw values of ``field``, all ``MISSING`` where the file has no such field."""
        return self.columns.get(field) or [MISSING] * len(self)

    def where(self, row: int, field: str | None = None) -> str:
        """A place in the file for a message: file, line, entry within the line, field."""
        parts = [self.path, f"{self.unit} {self.numbers[row]}"]
        if self.entries is not None:
            parts.append(self.entries[row])
        if field is not None:
            parts.append(f"field '{field}'")
        return ", ".join(parts)

    def refuse(self, row: int, field: str, accepted: str) -> NoReturn:
        """Raise the `InputError` for a value that is not accepted."""
        value = self.column(field)[row]
        if value is MISSING or value == "":
            raise InputError(f"{self.where(row, field)} is missing; expected {accepted}")
        raise InputError(f"{self.where(row, field)}: {quoted(value)} is not accepted; expected {accepted}")


def from_objects(
    path: str,
    objects: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    entries: Sequence[str] | None = None,
) -> RawRecords:
    """Records from JSON objects; fields are all that any object has, in order of first appearance."""
    fields = dict.fromkeys(chain.from_iterable(objects))
    columns = {field: [item.get(field, MISSING) for item in objects] for field in fields}
    return RawRecords(path, columns, numbers, entries=entries)


def nested(records: RawRecords, field: str) -> tuple[list[int], RawRecords]:
    """The objects in each record's list ``field``, as records of their own, with the row that each came from.

    Raises `InputError` where the field is no list of objects.
    """
    owners: list[int] = []
    objects: list[Mapping[str, Any]] = []
    entries: list[str] = []
    for row, items in enumerate(records.column(field)):
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            records.refuse(row, field, "a list of objects")
        label = f"{records.entries[row]}.{field}" if records.entries else field
        owners += [row] * len(items)
        objects += items
        entries += [f"{label}[{index}]" for index in range(len(items))]
    return owners, from_objects(records.path, objects, [records.numbers[row] for row in owners], entries)


def tokens(records: RawRecords, field: str, *, least: int = 1) -> IntArray:
    """Token counts, shape ``[n]``: whole numbers from ``least`` to `MAX_TOKENS`. Raises `InputError` otherwise."""
    return integers(records, field, least, MAX_TOKENS, "tokens")


def integers(
    records: RawRecords, field: str, least: int, most: int, what: str, *, missing: int | None = None
) -> IntArray:
    """Whole numbers of ``what`` from ``least`` to ``most``, shape ``[n]``; ``missing`` where a record has none.

    Raises `InputError` otherwise.
    """
    values = records.column(field)
    if missing is not None:
        values = [missing if value is MISSING else value for value in values]
    array = _integers_at_once(values, records.text)
    if array is None or (len(array) and (array.min() < least or array.max() > most)):
        accepted = f"a whole number of {what} from {least:,} to {most:,}"
        array = np.empty(len(values), dtype=np.int64)
        for row, value in enumerate(values):
            number = _number(value, records.text)
            if number is None or number != number // 1 or not least <= number <= most:
                records.refuse(row, field, accepted)
            array[row] = int(number)
    return array


def numbers(
    records: RawRecords, field: str, accepted: str, *, least: float = -math.inf, optional: bool = False
) -> FloatArray:
    """Finite numbers >= ``least``, shape ``[n]``; NaN where not given, if ``optional``.

    Raises `InputError` otherwise.
    """
    array = np.empty(len(records))
    for row, value in enumerate(records.column(field)):
        if optional and (value is MISSING or value == ""):
            array[row] = math.nan
            continue
        number = _number(value, records.text)
        if number is None or not math.isfinite(number) or number < least:
            records.refuse(row, field, accepted)
        array[row] = number
    return array


def times(records: RawRecords, field: str, unit: str, asked_unit: str | None, *, optional: bool = False) -> FloatArray:
    """Seconds since the earliest value of ``field``, shape ``[n]``; NaN where not given, if ``optional``.

    Numbers are read in ``asked_unit``, else in the format's own ``unit``; text may also be dates (ISO 8601, any
    number of fractional digits, with or without time zone). Differences are taken before rounding to doubles, so that
    epoch nanoseconds keep their last digit. Raises `InputError` otherwise.
    """
    values = records.column(field)
    given = [row for row, value in enumerate(values) if value is not MISSING and value != ""]
    if len(given) < len(values) and not optional:
        first = next(row for row, value in enumerate(values) if value is MISSING or value == "")
        records.refuse(first, field, "a time")
    seconds = np.full(len(values), math.nan)
    if not given:
        return seconds
    if isinstance(values[given[0]], str | datetime) and _number(values[given[0]], records.text) is None:
        if asked_unit is not None:
            raise InputError(f"{records.where(given[0], field)} is a date: a time unit ({asked_unit}) is not accepted")
        stamps: IntArray | FloatArray = _dates_ns(records, field, given)
        per_s = UNITS_PER_S["ns"]
    else:
        stamps = _stamps(records, field, given)
        per_s = UNITS_PER_S[asked_unit or unit]
    seconds[given] = (stamps - stamps.min()) / per_s
    return seconds


def texts(records: RawRecords, field: str) -> list[str]:
    """Text values, as they are. Raises `InputError` for anything else."""
    values = records.column(field)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            records.refuse(row, field, "text")
    return list(values)


def labels(records: RawRecords, field: str) -> list[str | None]:
    """Identifiers as text; None where not given. Raises `InputError` for anything but text or a number."""
    named: list[str | None] = []
    for row, value in enumerate(records.column(field)):
        if value is MISSING or value == "":
            named.append(None)
        elif isinstance(value, str | int) and not isinstance(value, bool):
            named.append(str(value))
        else:
            records.refuse(row, field, "text or a whole number")
    return named


def _integers_at_once(values: Sequence[Any], text: bool) -> IntArray | None:
    """The fast path for a clean column; None if anything in it needs a closer look."""
    kinds = set(map(type, values))
    if kinds != {str if text else int}:
        return None
    try:
        return np.array(list(map(int, values)), dtype=np.int64)
    except (ValueError, OverflowError):
        return None


def _floats_at_once(values: Sequence[Any], text: bool) -> FloatArray | None:
    """The same for times: finite numbers below 2**63."""
    if not set(map(type, values)) <= ({str} if text else {int, float}):
        return None
    try:
        array = np.array(list(map(float, values)))
    except (ValueError, OverflowError):
        return None
    return array if bool((np.abs(array) < 2**63).all()) else None


def _number(value: Any, text: bool) -> int | float | None:
    """A value as a number; None if it is none (NaN and infinity are numbers here)."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return value if isinstance(value, int | float) else float(value)
    if text and isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return None


def _stamps(records: RawRecords, field: str, given: Sequence[int]) -> IntArray | FloatArray:
    """Numeric time stamps of the rows ``given``: integers where all are, else doubles."""
    values = records.column(field)
    picked = values if len(given) == len(values) else [values[row] for row in given]
    whole = _integers_at_once(picked, records.text)
    if whole is not None:
        return whole
    stamps = _floats_at_once(picked, records.text)
    if stamps is not None:
        return stamps
    stamps = np.empty(len(given))
    for position, row in enumerate(given):
        number = _number(values[row], records.text)
        # Doubles carry 2**63 and more, but no clock does.
        if number is None or not abs(number) < 2**63:
            records.refuse(row, field, "a finite number")
        stamps[position] = number
    return stamps


def _dates_ns(records: RawRecords, field: str, given: Sequence[int]) -> IntArray:
    """Dates of the rows ``given``, as nanoseconds since the epoch; without a time zone they count as UTC."""
    values = records.column(field)
    picked = [values[row] for row in given]
    if all(isinstance(value, str) for value in picked):
        zone = next((zone for zone in ("Z", "+00:00") if picked[0].endswith(zone)), "")
        bare = [value.removesuffix(zone) for value in picked]
        if all(map(_PLAIN_DATE.fullmatch, bare)):
            try:
                return np.array(bare, dtype="M8[ns]").astype(np.int64)
            except ValueError:
                pass  # the loop below finds the value to blame
    stamps = np.empty(len(given), dtype=np.int64)
    for position, row in enumerate(given):
        try:
            value = values[row]
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except (TypeError, ValueError):
            records.refuse(row, field, "a date such as 2024-05-10 00:00:00.009930")
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        stamps[position] = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    return stamps


def quoted(value: Any) -> str:
    """A value as messages quote it: on one line, and cut if it is long."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
