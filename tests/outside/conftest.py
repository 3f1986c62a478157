"""A package that offers one of each thing, installed where nothing else is."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

DISTRIBUTION = Path(__file__).parent / "distribution"


def install(source: Path, target: Path) -> None:
    """Put a distribution of one module where Python finds it, as `pip install --target` would, without network."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    for module in source.glob("*.py"):
        shutil.copy(module, target)
    info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The folder that the package is installed in, on the path of this process and of those that it starts."""
    target = tmp_path / "site-packages"
    target.mkdir()
    install(DISTRIBUTION, target)
    monkeypatch.syspath_prepend(target)
    monkeypatch.setenv("PYTHONPATH", str(target), prepend=":")
    yield target
    sys.modules.pop("l4sim_outside", None)


@pytest.fixture
def triples(tmp_path):
    """A trace in a format that only the package knows: 20 requests, the last two with long prompts."""
    path = tmp_path / "requests.jsonl"
    rows = [{"when": 0.1 * number, "in": 100 if number < 18 else 900, "out": 10} for number in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
