"""Reading NVIDIA AIPerf's ``profile_export.jsonl``: one JSON object for every request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4sim.errors import InputError
from l4sim.json_files import Count, Text, checked, decode_json
from l4sim.recordings.client_reports import ClientRequest, client_recording, own_file
from l4sim.recordings.recording import Recording

FILE = "profile_export.jsonl"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}
_WARMUP = "warmup"
_METRICS = ("input_sequence_length", "output_sequence_length", "time_to_first_token", "request_latency")


@dataclass(frozen=True, slots=True)
class _Metadata:
    x_request_id: Text
    request_start_ns: Count
    benchmark_phase: str = "profiling"
    was_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    metadata: _Metadata
    metrics: Mapping[str, Any]
    error: Any = None


@dataclass(frozen=True, slots=True)
class _Value:
    value: float
    unit: str


def recognises(path: Path) -> bool:
    """Whether a file, or the one of this name in a folder, is such an export."""
    file = own_file(path, FILE)
    if not file.is_file() or file.suffix != ".jsonl":
        return False
    with file.open("rb") as lines:
        return b'"request_start_ns"' in lines.readline()


def read_recording(path: Path) -> Recording:
    """Read such an export, which does not name the model.

    Requests to warm up are left out; those cancelled or with an error count as not served.

    Raises:
        InputError: a field is missing or invalid (with its line), answers were not streamed, or nothing was served.
    """
    file = own_file(path, FILE)
    return client_recording(path, list(_requests(file)), None)


def _requests(file: Path) -> Iterator[ClientRequest]:
    for number, text in enumerate(file.read_bytes().splitlines(), start=1):
        where = f"{file}, line {number}"
        line = decode_json(text, _Line, where, others=True)
        if line.metadata.benchmark_phase == _WARMUP:
            continue
        served = line.error is None and not line.metadata.was_cancelled
        values = {name: checked(value, _Value, f"{where}: {name}") for name, value in _known(line.metrics).items()}
        missing = [name for name in _METRICS if name not in values]
        if served and missing:
            raise InputError(f"{where}: metrics: {', '.join(missing)} missing: run AIPerf with --streaming")
        yield ClientRequest(
            line.metadata.x_request_id,
            line.metadata.request_start_ns * 1e-9,
            int(_number(values, "input_sequence_length")),
            int(_number(values, "output_sequence_length")),
            _seconds(values, "time_to_first_token", where),
            _seconds(values, "request_latency", where),
            served,
        )


def _known(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in _METRICS if name in metrics}


def _number(values: Mapping[str, _Value], name: str) -> float:
    return values[name].value if name in values else 0.0


def _seconds(values: Mapping[str, _Value], name: str, where: str) -> float:
    if name not in values:
        return 0.0
    unit = values[name].unit
    if unit not in _SECONDS:
        raise InputError(f"{where}: {name} is in {unit}, accepted are {', '.join(_SECONDS)}")
    return values[name].value * _SECONDS[unit]
