"""Reading a table of measured points: one closed loop a row, with the model, GPU, engine and parallelism that ran it.

The form is AISimulate's ``silicon_sample.csv`` (ai-dynamo/aisimulate, Apache-2.0), most of which are InferenceX's runs.
Rows are read for what they are: how their fields are understood where they contradict each other is said here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from l4sim.errors import InputError
from l4sim.workload.files import read_records
from l4sim.workload.raw_records import RawRecords

_MEASURED = ("ttft_ms", "tpot_ms")
_NEEDED = ("backend", "model_path", "system", "isl", "osl", "concurrency", "tp_size", *_MEASURED)
_AGGREGATED = "agg"


class Ranks(NamedTuple):
    """How the GPUs of one instance share a model."""

    tensor: int = 1
    """GPUs that share each request's attention."""
    attention_dp: int = 1
    """Groups of such GPUs, each with requests of its own."""
    expert: int = 1
    """GPUs that hold different experts; those that are left slice each expert."""

    @property
    def gpus(self) -> int:
        """GPUs of the instance."""
        return self.tensor * self.attention_dp

    def __str__(self) -> str:
        parts = {"TP": self.tensor, "DP": self.attention_dp, "EP": self.expert}
        return " ".join(f"{name}{size}" for name, size in parts.items() if size > 1 or name == "TP")


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured of one closed loop; rows that repeat each other are one point."""

    lines: tuple[int, ...]
    """Of the file."""
    model: str
    gpu: str
    engine: str
    version: str | None
    weights: str | None
    """The format of linear layers' weights, by the file's name for it; None: not told."""
    expert_weights: str | None
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    ranks: Ranks
    ttft_s: float
    """Mean; of several rows the median."""
    tpot_s: float

    @property
    def name(self) -> str:
        """In one line."""
        return (
            f"{self.model} {self.weights or '16 bits'}, {self.engine} {self.version or '(no version)'} on {self.gpu} "
            f"{self.ranks}, {self.prompt_tokens}+{self.output_tokens} tokens, {self.concurrency} at a time"
        )


class RefusedRow(NamedTuple):
    """A row that is not simulated."""

    line: int
    name: str
    """What it is, as far as it tells."""
    reason: str


def read_points(path: Path) -> tuple[list[Point], list[RefusedRow]]:
    """The points of a CSV file, and the rows that are none.

    Rows with equal fields but for what was measured are one point with the medians of it.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    records = read_records(path)
    for column in _NEEDED:
        if column not in records.columns:
            raise InputError(f"{path}: column '{column}' is missing; needed are {', '.join(_NEEDED)}")
    rows = [{name: str(values[row] or "").strip() for name, values in records.columns.items()} for row in _all(records)]
    alike: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for row, fields in enumerate(rows):
        key = tuple((name, value) for name, value in fields.items() if name not in _MEASURED)
        alike.setdefault(key, []).append(row)
    points, refused = [], []
    for numbers in alike.values():
        measured = []
        for row in numbers:
            line, fields = records.numbers[row], rows[row]
            try:
                measured.append((line, _point(line, fields)))
            except InputError as error:
                refused.append(RefusedRow(line, _told(fields), str(error)))
        if measured:
            points.append(_median([point for _, point in measured]))
    return sorted(points, key=lambda point: point.lines), sorted(refused)


def _all(records: RawRecords) -> range:
    return range(len(records))


def _told(fields: Mapping[str, str]) -> str:
    parts = (fields.get(name) for name in ("mode", "model_path", "backend", "system"))
    return " ".join(part for part in parts if part)


def _point(line: int, fields: Mapping[str, str]) -> Point:
    mode = fields.get("mode") or _AGGREGATED
    if mode != _AGGREGATED:
        raise InputError(f"mode {mode}: prompts and decoding on instances of their own are not simulated yet")
    if _count(fields, "pp_size", 1) != 1:
        raise InputError(f"pp_size {fields['pp_size']}: pipeline stages are not simulated")
    return Point(
        (line,),
        _text(fields, "model_path"),
        _text(fields, "system"),
        _text(fields, "backend"),
        fields.get("backend_version") or None,
        fields.get("gemm_quant_mode") or None,
        fields.get("moe_quant_mode") or None,
        _count(fields, "isl"),
        _count(fields, "osl"),
        _count(fields, "concurrency"),
        _ranks(fields),
        _milliseconds(fields, "ttft_ms") / 1e3,
        _milliseconds(fields, "tpot_ms") / 1e3,
    )


def _ranks(fields: Mapping[str, str]) -> Ranks:
    """Who shares what.

    A converter of such tables multiplied the benchmark's two flags where both were given: a tensor-parallel size of 64
    with experts of 8 x 8 is TP 8 and EP 8 on 8 GPUs, which is what the same measurement's other row says; attention
    data-parallel of a size like the tensor-parallel one, with experts on as many squared, is one flag for both.
    """
    tensor, moe_tensor, expert = (
        _count(fields, name, least=least, missing=missing)
        for name, least, missing in (("tp_size", 1, None), ("moe_tp_size", 0, 1), ("moe_ep_size", 0, 1))
    )
    slices = max(moe_tensor, 1) * max(expert, 1)
    attention_dp = _count(fields, "attention_dp_size", 0, missing=0)
    if moe_tensor == expert > 1 and tensor == slices:
        return Ranks(moe_tensor, 1, expert)
    if attention_dp == tensor > 1 and tensor**2 == slices:
        return Ranks(1, tensor, tensor)
    if slices == 1:
        return Ranks(tensor, attention_dp or 1, 1)
    if not attention_dp and slices % tensor == 0:
        attention_dp = slices // tensor
    if tensor * attention_dp != slices:
        raise InputError(
            f"tp_size {tensor} x attention_dp_size {attention_dp or 1} GPUs for attention, and moe_tp_size "
            f"{moe_tensor} x moe_ep_size {expert} for experts: they contradict each other"
        )
    return Ranks(tensor, attention_dp, expert)


def _median(points: list[Point]) -> Point:
    first = points[0]
    return Point(
        tuple(line for point in points for line in point.lines),
        first.model,
        first.gpu,
        first.engine,
        first.version,
        first.weights,
        first.expert_weights,
        first.prompt_tokens,
        first.output_tokens,
        first.concurrency,
        first.ranks,
        statistics.median(point.ttft_s for point in points),
        statistics.median(point.tpot_s for point in points),
    )


def _text(fields: Mapping[str, str], name: str) -> str:
    if not fields[name]:
        raise InputError(f"{name} is missing")
    return fields[name]


def _count(fields: Mapping[str, str], name: str, least: int = 1, missing: int | None = None) -> int:
    """A whole number, which may be written as 8.0."""
    text = fields.get(name, "")
    if not text and missing is not None:
        return missing
    number = _number(name, text)
    if number != int(number) or number < least:
        raise InputError(f"{name} is {text}, accepted is a whole number >= {least}")
    return int(number)


def _milliseconds(fields: Mapping[str, str], name: str) -> float:
    number = _number(name, fields[name])
    if number <= 0:
        raise InputError(f"{name} is {fields[name]}, accepted is a number of milliseconds above 0")
    return number


def _number(name: str, text: str) -> float:
    if not text:
        raise InputError(f"{name} is missing")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name} is {text}, accepted is a number")
    return number
