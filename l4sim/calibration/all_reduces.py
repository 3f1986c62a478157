"""Measured all-reduces that are bundled by kind of GPU: what a profile takes where it has none of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from l4sim.bundled import folder
from l4sim.calibration.profile_json import all_reduce_json, write_json
from l4sim.cost.communication import AllReduceTable
from l4sim.json_files import Text, read_json
from l4sim.specs.gpu import GPU

_FOLDER = "all_reduce"


class _Bundled(NamedTuple):
    """Which file a GPU takes, and whether it was measured on such a GPU."""

    name: str
    measured: bool


_BUNDLED = {
    "h200-sxm": _Bundled("h200-sxm", True),
    "h100-sxm": _Bundled("h100-sxm", True),
    "a100-80gb-sxm": _Bundled("a100-80gb-sxm", True),
    "rtx-pro-6000": _Bundled("rtx-pro-6000", True),
    "l40s": _Bundled("l40s", True),
    # The same board and PCIe 4.0 x16.
    "l40-48gb": _Bundled("l40s", False),
    # The same NVLink 4 through the same switches.
    "h20-141gb": _Bundled("h200-sxm", False),
}


@dataclass(frozen=True, slots=True)
class _File:
    tables: tuple[AllReduceTable, ...]
    source: Text


def all_reduces_of(gpu: GPU, own: Sequence[AllReduceTable] = (), source: str = "") -> dict[str, Any]:
    """A profile's section: its ``own`` tables with their ``source``, and the bundled ones that they leave open."""
    bundled = bundled_all_reduces(gpu)
    taken = {(table.gpus, table.regime, table.version) for table in own}
    others = [table for table in bundled.tables if (table.gpus, table.regime, table.version) not in taken]
    sources = [text for text, tables in ((source, own), (bundled.source, others)) if tables]
    return all_reduce_json([*own, *others], "; ".join(sources) or "none: from the link, not measured")


def bundled_all_reduces(gpu: GPU) -> _File:
    """The bundled tables that a GPU takes; none where none fits."""
    found = _BUNDLED.get(gpu.name)
    if found is None:
        return _File((), "none")
    file = read_json(folder("profiles") / _FOLDER / f"{found.name}.json", _File)
    if found.measured:
        return file
    return _File(tuple(replace(table, measured=False) for table in file.tables), f"{file.source}; taken for {gpu.name}")


def write_all_reduces(tables: Sequence[AllReduceTable], source: str, path: Path) -> None:
    """Write a file of tables, as they are bundled."""
    write_json(all_reduce_json(tables, source), path)
