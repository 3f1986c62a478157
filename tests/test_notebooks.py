"""The notebooks as they are committed: executed from top to bottom, without errors, without traces of where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 500_000

_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|var|opt|mnt|work|usr|private)/|\b[A-Z]:\\")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{8,}")
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)(?P<target>[^)#\s]+)")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def notebook(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in notebook(path)["cells"] if cell["cell_type"] == "code"]


def outputs(path: Path) -> list[dict[str, Any]]:
    return [output for cell in code_cells(path) for output in cell["outputs"]]


def text_of(path: Path) -> str:
    """Everything that is read, sources and outputs; pictures left out."""
    parts = [cell["source"] for cell in notebook(path)["cells"]]
    for output in outputs(path):
        parts.append(output.get("text", ""))
        parts += [data for kind, data in output.get("data", {}).items() if not kind.startswith("image/")]
    return "\n".join("".join(part) for part in parts)


def test_it_was_executed_in_one_go(path):
    assert [cell["execution_count"] for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))


def test_every_cell_that_draws_shows_a_picture(path):
    drawing = [cell for cell in code_cells(path) if re.search(r"\.plot\.|plt\.subplots", "".join(cell["source"]))]
    assert drawing
    for cell in drawing:
        assert any("image/png" in output.get("data", {}) for output in cell["outputs"]), "".join(cell["source"])


def test_nothing_failed_or_warned(path):
    assert not [output for output in outputs(path) if output["output_type"] == "error"]
    assert not [output for output in outputs(path) if output.get("name") == "stderr"]


def test_it_tells_nothing_of_the_machine(path):
    text = text_of(path)
    assert not _ABSOLUTE_PATH.findall(text)
    assert not _ADDRESS.findall(text)


def test_its_metadata_are_clean(path):
    metadata = notebook(path)["metadata"]
    assert set(metadata) <= {"kernelspec", "language_info"}
    assert metadata["kernelspec"]["name"] == "python3"
    assert not any(cell["metadata"] for cell in notebook(path)["cells"])


def test_its_grid_can_be_reduced(path):
    assert "L4SIM_NOTEBOOKS" in text_of(path)


def test_it_is_small(path):
    assert path.stat().st_size < MAX_BYTES


def test_its_links_lead_somewhere(path):
    prose = "\n".join("".join(cell["source"]) for cell in notebook(path)["cells"] if cell["cell_type"] == "markdown")
    targets = [found["target"] for found in _LINK.finditer(prose)]
    assert not [target for target in targets if not (path.parent / target).exists()]
