"""Profiles from what others measured, a module for each source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from l4sim.calibration.importers import aiconfigurator, frontier, llmservingsim
from l4sim.calibration.importers.importer import Given, Importer
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

IMPORTERS: tuple[Importer, ...] = (aiconfigurator.IMPORTER, frontier.IMPORTER, llmservingsim.IMPORTER)
"""In the order in which a path is tried: the last takes any folder."""


def import_profile(path: Path, gpu: GPU, given: Given) -> dict[str, Any]:
    """What ``profile.json`` holds, made of a file or folder of any kind in `IMPORTERS`.

    Raises:
        InputError: no such path; something was given that its kind does not take, or is missing; a value that cannot
            be read (with its line).
    """
    found = next((importer for importer in IMPORTERS if importer.reads(path)), None) if path.exists() else None
    if found is None:
        raise InputError(f"{path}: no such file or folder")
    if not found.asks and given != Given():
        takers = " and ".join(importer.name for importer in IMPORTERS if importer.asks)
        raise InputError(f"{path}: --model, --tensor-parallel and --host-overhead-ms are for {takers}'s folders")
    return found.load(path, gpu, given)
