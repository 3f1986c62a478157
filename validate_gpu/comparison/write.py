"""A validation's folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from l4sim.results.metrics import summarise
from l4sim.results.run import Run
from l4sim.results.write import unwritable, write_json, write_run
from validate_gpu.comparison.compare import Comparison
from validate_gpu.comparison.iterations import write_iterations
from validate_gpu.comparison.plots import draw
from validate_gpu.comparison.report import report


def write_comparison(comparison: Comparison, out: Path, *, tolerance_pct: float, command: str, date: str) -> Path:
    """Write ``report.md`` with its pictures, ``validation.json``, ``iterations.parquet``, ``decisions.jsonl.gz``, and
    both sides' tables.

    Returns the report.

    Raises:
        InputError: the folder cannot be written.
    """
    path = out / "report.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "validation.json", comparison.to_json() | {"tolerance_pct": tolerance_pct, "date": date})
        write_iterations(comparison.iterations, out / "iterations.parquet")
        _write_decisions(comparison, out / "decisions.jsonl.gz")
        pictures = draw(comparison, out)
        text = report(comparison, pictures, tolerance_pct=tolerance_pct, command=command, date=date)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(out, error) from error
    _write_side(comparison, out / "simulated", list(comparison.predicted.values()))
    repeats = zip(*comparison.live.runs.values(), strict=True)
    for number, runs in enumerate(repeats, start=1):
        _write_side(comparison, out / f"live-{number}", [one.run for one in runs])
    return path


def _write_decisions(comparison: Comparison, path: Path) -> None:
    """One line per call of a policy's router, agent or coordinator, what was read of views among it."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for policy, runs in comparison.live.runs.items():
            for repeat, one in enumerate(runs, start=1):
                for call in one.calls:
                    row = {"policy": policy, "run": repeat, "call": type(call).__name__, **call._asdict()}
                    file.write(json.dumps({name: _told(value) for name, value in row.items()}).encode() + b"\n")


def _told(value: object) -> object:
    """Numbers, texts and what was read as they are; messages, stimuli and instructions in Python's words."""
    if isinstance(value, dict):
        return {name if isinstance(name, str) else repr(name): _told(item) for name, item in value.items()}
    return value if isinstance(value, (int, float, str)) else repr(value)


def _write_side(comparison: Comparison, out: Path, runs: Sequence[Run]) -> None:
    config = comparison.setup.describe() | {"live": dict(comparison.live.device)}
    write_run(out, config, runs, {"policies": [summarise(run) for run in runs]})
