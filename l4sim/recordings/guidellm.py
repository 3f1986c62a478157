"""Reading guidellm's JSON report: benchmarks, each with the requests that succeeded, failed or were not done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4sim.errors import InputError
from l4sim.json_files import NonNegative, Text, checked
from l4sim.recordings.client_reports import ClientRequest, client_recording, decoded
from l4sim.recordings.recording import Recording


@dataclass(frozen=True, slots=True)
class _Request:
    request_id: Text
    request_start_time: NonNegative
    request_latency: NonNegative | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    time_to_first_token_ms: NonNegative | None = None


@dataclass(frozen=True, slots=True)
class _Requests:
    successful: tuple[_Request, ...]
    errored: tuple[_Request, ...] = ()
    incomplete: tuple[_Request, ...] = ()


@dataclass(frozen=True, slots=True)
class _Benchmark:
    requests: _Requests


@dataclass(frozen=True, slots=True)
class _Report:
    benchmarks: tuple[_Benchmark, ...]
    config: Any = None


def recognises(path: Path) -> bool:
    """Whether a file is such a report."""
    values = decoded(path) if path.is_file() else None
    return isinstance(values, dict) and isinstance(values.get("benchmarks"), list)


def read_recording(path: Path) -> Recording:
    """Read a report of one benchmark.

    Raises:
        InputError: it holds several (each is a run of its own), a field is missing or invalid, or nothing was served.
    """
    report = checked(decoded(path), _Report, str(path), others=True)
    if len(report.benchmarks) != 1:
        raise InputError(f"{path}: {len(report.benchmarks)} benchmarks, accepted is one: run one rate at a time")
    requests = report.benchmarks[0].requests
    groups = ((requests.successful, True), (requests.errored, False), (requests.incomplete, False))
    return client_recording(path, [_row(one, served) for group, served in groups for one in group], _model(report))


def _row(request: _Request, served: bool) -> ClientRequest:
    return ClientRequest(
        request.request_id,
        request.request_start_time,
        request.prompt_tokens or 0,
        request.output_tokens or 0,
        (request.time_to_first_token_ms or 0.0) * 1e-3,
        request.request_latency or 0.0,
        served,
    )


def _model(report: _Report) -> str | None:
    """The model's name, where the report's configuration has it."""
    found = report.config
    for name in ("spec", "backend", "model"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None
