"""Reading inference-perf's ``per_request_lifecycle_metrics.json``: a list with an object for every request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4sim.errors import InputError
from l4sim.json_files import NonNegative, Number, checked
from l4sim.recordings.client_reports import ClientRequest, client_recording, decoded, own_file
from l4sim.recordings.recording import Recording

FILE = "per_request_lifecycle_metrics.json"


@dataclass(frozen=True, slots=True)
class _Response:
    output_tokens: int | None = None
    output_token_times: tuple[Number, ...] = ()
    chunk_times: tuple[Number, ...] = ()


@dataclass(frozen=True, slots=True)
class _Info:
    input_tokens: int | None = None
    response_metrics: _Response | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    start_time: NonNegative
    end_time: NonNegative
    info: _Info
    error: Any = None
    request: Any = None


def recognises(path: Path) -> bool:
    """Whether a file, or the one of this name in a folder, is such a report."""
    file = own_file(path, FILE)
    values = decoded(file) if file.is_file() else None
    return isinstance(values, list) and bool(values) and isinstance(values[0], dict) and "start_time" in values[0]


def read_recording(path: Path) -> Recording:
    """Read such a report; a request ends with its last token, after which the client still had to hang up.

    Raises:
        InputError: a field is missing or invalid, answers were not streamed, or nothing was served.
    """
    file = own_file(path, FILE)
    values = decoded(file)
    rows = [_row(f"{file}: [{number}]", number, value) for number, value in enumerate(values)]
    return client_recording(path, rows, _model(values[0].get("request")))


def _row(where: str, number: int, value: Any) -> ClientRequest:
    request = checked(value, _Request, where, others=True)
    response = request.info.response_metrics or _Response()
    times_s = response.output_token_times or response.chunk_times
    served = request.error is None
    if served and not times_s:
        raise InputError(f"{where}: no times of its tokens: run inference-perf with api: streaming: true")
    return ClientRequest(
        f"request-{number}",
        request.start_time,
        request.info.input_tokens or 0,
        response.output_tokens or 0,
        times_s[0] - request.start_time if times_s else 0.0,
        times_s[-1] - request.start_time if times_s else 0.0,
        served,
    )


def _model(request: Any) -> str | None:
    """The model's name, in the request as it was sent."""
    try:
        found = json.loads(request)["model"]
    except (TypeError, ValueError, KeyError):
        return None
    return found if isinstance(found, str) else None
