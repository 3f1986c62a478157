"""Reading what ``vllm bench serve --save-result --save-detailed`` writes: JSON, lists with an item a request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from l4sim.errors import InputError
from l4sim.json_files import NonNegative, Text, checked
from l4sim.recordings.client_reports import ClientRequest, client_recording, decoded
from l4sim.recordings.recording import Recording

_ALWAYS = {"model_id", "num_prompts", "request_throughput"}


@dataclass(frozen=True, slots=True)
class _Report:
    model_id: Text
    start_times: tuple[NonNegative, ...]
    input_lens: tuple[int, ...]
    output_lens: tuple[int, ...]
    ttfts: tuple[NonNegative, ...]
    itls: tuple[tuple[NonNegative, ...], ...]
    errors: tuple[str, ...]


def recognises(path: Path) -> bool:
    """Whether a file is such a report, with the requests in it or without."""
    values = decoded(path) if path.is_file() else None
    return isinstance(values, dict) and values.keys() >= _ALWAYS


def read_recording(path: Path) -> Recording:
    """Read such a report; E2E latency is the first token's and all that came between tokens.

    Raises:
        InputError: it was saved without ``--save-detailed``, a field is missing or invalid, or nothing was served.
    """
    values = decoded(path)
    if "ttfts" not in values:
        raise InputError(f"{path}: no requests are in it, only figures over all: save it with --save-detailed")
    report = checked(values, _Report, str(path), others=True)
    lengths = {name: len(getattr(report, name)) for name in _Report.__slots__ if name != "model_id"}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: lists of different lengths: {', '.join(f'{n} {k}' for n, k in lengths.items())}")
    columns = (report.start_times, report.input_lens, report.output_lens, report.ttfts, report.itls, report.errors)
    rows = [
        ClientRequest(f"request-{number}", sent_s, prompt, output, ttft_s, ttft_s + sum(itl_s), not error)
        for number, (sent_s, prompt, output, ttft_s, itl_s, error) in enumerate(zip(*columns, strict=True))
    ]
    return client_recording(path, rows, report.model_id)
