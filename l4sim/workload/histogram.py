"""Reading a histogram of request lengths, for which a plan is made instead of a trace's own lengths."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.trace import FloatArray, IntArray

_COLUMNS = ("prompt_tokens", "output_tokens", "requests_per_s")


@dataclass(frozen=True, slots=True)
class LengthHistogram:
    """Requests by length; all of shape ``[rows]``."""

    prompt_tokens: IntArray
    output_tokens: IntArray
    requests_per_s: FloatArray


def read_histogram(path: Path) -> LengthHistogram:
    """The histogram in a CSV file with the columns prompt_tokens, output_tokens and requests_per_s, in any order.

    Raises:
        InputError: the file cannot be read, a column is missing or unknown, or a value is out of range.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not CSV text ({error})") from None
    header = [name.strip() for name in lines[0]] if lines else []
    if sorted(header) != sorted(_COLUMNS):
        raise InputError(
            f"{path}: line 1: columns are {', '.join(header) or 'none'}; accepted are {', '.join(_COLUMNS)}"
        )
    rows = [_row(f"{path}: line {number}", header, line) for number, line in enumerate(lines[1:], start=2) if line]
    if not rows:
        raise InputError(f"{path}: no rows")
    prompt, output, rate = (np.array(column) for column in zip(*rows, strict=True))
    return LengthHistogram(prompt.astype(np.int64), output.astype(np.int64), rate.astype(np.float64))


def _row(where: str, header: list[str], line: list[str]) -> tuple[int, int, float]:
    if len(line) != len(header):
        raise InputError(f"{where}: {len(line)} values, accepted are {len(header)}")
    fields = dict(zip(header, line, strict=True))
    prompt, output = (_tokens(f"{where}: {name}", fields[name]) for name in _COLUMNS[:2])
    return prompt, output, _rate(f"{where}: {_COLUMNS[2]}", fields[_COLUMNS[2]])


def _tokens(where: str, text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdigit() or not 1 <= int(text) < 1 << 62:
        raise InputError(f"{where} is {text!r}, accepted is a whole number >= 1")
    return int(text)


def _rate(where: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate >= 0):
        raise InputError(f"{where} is {text!r}, accepted is a number >= 0")
    return rate
