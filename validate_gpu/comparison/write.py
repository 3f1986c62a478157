"""Writing a validation's folder."""

from __future__ import annotations

from pathlib import Path

from l4sim.results.metrics import summarise
from l4sim.results.write import unwritable, write_json, write_run
from validate_gpu.comparison.compare import Comparison
from validate_gpu.comparison.iterations import write_iterations
from validate_gpu.comparison.plots import draw
from validate_gpu.comparison.report import report


def write_comparison(comparison: Comparison, out: Path, *, tolerance_pct: float, command: str, date: str) -> Path:
    """Write ``report.md`` with its pictures, ``validation.json``, ``iterations.parquet`` and the simulation's tables.

    The live runs' have been written by a `Recorder`. Returns the report.

    Raises:
        InputError: the folder cannot be written.
    """
    path = out / "report.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "validation.json", comparison.to_json() | {"tolerance_pct": tolerance_pct, "date": date})
        write_iterations(comparison.iterations, out / "iterations.parquet")
        pictures = draw(comparison, out)
        text = report(comparison, pictures, tolerance_pct=tolerance_pct, command=command, date=date)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(out, error) from error
    config = comparison.setup.describe() | {"live": dict(comparison.live.device)}
    runs = list(comparison.predicted.values())
    write_run(out / "simulated", config, runs, {"policies": [summarise(run) for run in runs]})
    return path
