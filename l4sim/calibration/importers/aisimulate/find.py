"""Where AISimulate's tables lie: in its package, or in a folder that was copied from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from l4sim.errors import InputError

_PACKAGES = ("aisimulate_core", "aiconfigurator_core", "aiconfigurator")
_DATA = Path("systems", "data")

BACKENDS: Mapping[str, str] = {"vllm": "vLLM", "sglang": "SGLang"}
"""Engines whose tables are read, and what they are called."""


class Found(NamedTuple):
    """One file of measured rows."""

    path: Path
    version: str
    """Of the engine."""


def data_folder(given: Path | None) -> Path:
    """The folder of all systems: the given one, or the installed package's.

    Raises:
        InputError: it is not there, or no such package is installed.
    """
    if given is not None:
        if not given.is_dir():
            raise InputError(f"{given}: no such folder")
        return given
    for package in _PACKAGES:
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(place) / _DATA).is_dir():
                return Path(place) / _DATA
    raise InputError(
        f"none of {', '.join(_PACKAGES)} is installed: install aisimulate, or name the folder that has its tables"
    )


def find_tables(folder: Path, system: str, backend: str) -> dict[str, Found]:
    """The newest version of every table of a system and an engine, by the file's name without its ending.

    ``folder`` has the systems as subfolders, or is one of them. Below lie ``<backend>-<version>/<table>.parquet``, or
    as in the package ``<kind>/<backend>/<version>/<table>.parquet``.

    Raises:
        InputError: an engine that is not known, a system that is not there, or one without tables of that engine.
    """
    if backend not in BACKENDS:
        raise InputError(f"no backend '{backend}': accepted are {', '.join(BACKENDS)}")
    root = folder / system
    if not root.is_dir():
        if folder.resolve().name != system:
            systems = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "none"
            raise InputError(f"{folder}: no system '{system}', there are {systems}")
        root = folder
    newest: dict[str, Found] = {}
    for name, found in _tables(root, backend):
        if name not in newest or _order(found.version) > _order(newest[name].version):
            newest[name] = found
    if not newest:
        raise InputError(f"{root}: no tables of {backend}")
    return newest


def all_versions(folder: Path, system: str, backend: str, name: str) -> list[Found]:
    """One table in every version that there is, the newest first; empty where there is none."""
    root = folder / system
    found = [each for each_name, each in _tables(root if root.is_dir() else folder, backend) if each_name == name]
    return sorted(found, key=lambda each: _order(each.version), reverse=True)


def _tables(root: Path, backend: str) -> Iterator[tuple[str, Found]]:
    for path in sorted(root.rglob("*.parquet")):
        parts = path.relative_to(root).parts[:-1]
        version = next((part[len(backend) + 1 :] for part in parts if part.startswith(f"{backend}-")), None)
        if version is None and backend in parts[:-1]:
            version = parts[parts.index(backend) + 1]
        if version is not None:
            yield path.stem, Found(path, version)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
