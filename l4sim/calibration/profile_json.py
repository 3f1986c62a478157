"""The parts of a ``profile.json`` as plain values, and writing the whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from l4sim.cost.communication import AllReduceTable
from l4sim.cost.profile import PROFILE
from l4sim.cost.tables.stored import TABLES_FILE


def kernel_json(coefficients: Mapping[str, Any], errors: Mapping[str, Any], source: str) -> dict[str, Any]:
    """An attention kernel; empty ``errors`` mean that it was not measured."""
    return {"coefficients": dict(coefficients), "errors": dict(errors), "source": source}


def all_reduce_json(tables: Iterable[AllReduceTable], source: str) -> dict[str, Any]:
    """All-reduces by number of GPUs, regime and engine; none mean that nothing was measured."""
    return {"tables": to_builtins(list(tables)), "source": source}


def provenance_json(source: str, licence: str, kernels: str | None) -> dict[str, str | None]:
    """Where a profile comes from, where no more is known."""
    unknown = dict.fromkeys(("date", "gpu_clock", "driver", "cuda", "torch"))
    return {**unknown, "source": source, "licence": licence, "kernels": kernels}


def write_profile(profile: dict[str, Any], out: Path) -> Path:
    """Write ``profile.json`` into a folder, made if need be; returns its path."""
    path = out / PROFILE
    write_json(profile, path)
    return path


def write_tables(content: bytes, out: Path) -> None:
    """Write the file of a profile's tables beside its ``profile.json``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / TABLES_FILE).write_bytes(content)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write figures as people read them, into a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(content), indent=2)
    # Lists of numbers on one line each: a table's row reads as one.
    text = re.sub(r"\[[^\[\]{}\"]+\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Floats to six digits: fits are no better, and the file is read by people."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
