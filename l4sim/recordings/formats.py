"""The forms in which tools record an engine's run: a table, and the reader of whichever form a folder has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from l4sim.errors import InputError
from l4sim.recordings import client_csv, llmservingsim, own
from l4sim.recordings.recording import Recording


@dataclass(frozen=True, slots=True)
class RecordingFormat:
    """One tool's form of recorded runs."""

    name: str
    """What messages call it."""
    holds: str
    """The files by which a folder is recognised, in words."""
    recognises: Callable[[Path], bool]
    """Whether a folder has this form; looks at the names of files alone, or little more."""
    read: Callable[[Path], Recording]
    """Reads such a folder; raises `InputError` for what it cannot take."""


FORMATS = (
    RecordingFormat("l4sim record", "iterations.jsonl.gz", own.recognises, own.read_recording),
    RecordingFormat("LLMServingSim", "requests.jsonl", llmservingsim.recognises, llmservingsim.read_recording),
    RecordingFormat("client's table", "requests.csv", client_csv.recognises, client_csv.read_recording),
)
"""The first that recognises a folder reads it."""


def read_recording(folder: Path) -> Recording:
    """Read a folder that holds one recorded run, in whichever form.

    Raises:
        InputError: no such folder, no form of `FORMATS`, or what its reader refuses.
    """
    found = recognise(folder)
    if found is None:
        accepted = ", or ".join(f"{form.holds} ({form.name})" for form in FORMATS)
        raise InputError(f"{folder}: no recorded run is in it: accepted are {accepted}")
    return found.read(folder)


def recognise(folder: Path) -> RecordingFormat | None:
    """The form that a folder has; None if it holds no recorded run.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return next((form for form in FORMATS if form.recognises(folder)), None)
