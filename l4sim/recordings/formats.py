"""The forms in which tools record an engine's run: a table, and the reader of whichever form a folder has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from l4sim.errors import InputError
from l4sim.recordings import aiperf, client_csv, guidellm, inference_perf, llmservingsim, own, vllm_bench
from l4sim.recordings.recording import Recording


@dataclass(frozen=True, slots=True)
class RecordingFormat:
    """One tool's form of recorded runs."""

    name: str
    """What messages call it."""
    holds: str
    """What it is recognised by, in words."""
    recognises: Callable[[Path], bool]
    """Whether a folder or a file has this form."""
    read: Callable[[Path], Recording]
    """Reads it; raises `InputError` for what it cannot take."""


FORMATS = (
    RecordingFormat("l4sim record", "iterations.jsonl.gz", own.recognises, own.read_recording),
    RecordingFormat("LLMServingSim", "requests.jsonl", llmservingsim.recognises, llmservingsim.read_recording),
    RecordingFormat("client's table", "requests.csv", client_csv.recognises, client_csv.read_recording),
    RecordingFormat("AIPerf", aiperf.FILE, aiperf.recognises, aiperf.read_recording),
    RecordingFormat("inference-perf", inference_perf.FILE, inference_perf.recognises, inference_perf.read_recording),
    RecordingFormat("vllm bench serve", "a file of --save-detailed", vllm_bench.recognises, vllm_bench.read_recording),
    RecordingFormat("guidellm", "its JSON report", guidellm.recognises, guidellm.read_recording),
)
"""The first that recognises a folder or file reads it."""


def read_recording(path: Path) -> Recording:
    """Read a folder or a file that holds one recorded run, in whichever form.

    Raises:
        InputError: there is no such thing, no form of `FORMATS`, or what its reader refuses.
    """
    found = recognise(path)
    if found is None:
        accepted = ", or ".join(f"{form.holds} ({form.name})" for form in FORMATS)
        raise InputError(f"{path}: no recorded run is in it: accepted are {accepted}")
    return found.read(path)


def recognise(path: Path) -> RecordingFormat | None:
    """The form that a folder or a file has; None if it holds no recorded run.

    Raises:
        InputError: there is no such thing.
    """
    if not path.exists():
        raise InputError(f"{path}: no such folder or file")
    return next((form for form in FORMATS if form.recognises(path)), None)
