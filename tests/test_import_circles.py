"""No file needs a file that needs it in turn: imports inside functions count, those for types alone do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> Iterator[str]:
    """The names of modules, and of what may be modules, that some code imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield from imported(node)


def first_circle(sources: dict[str, str]) -> list[str]:
    """The modules of an import circle; empty if there is none.

    The package itself is left out: it gives its version to its files, and loads the public functions when asked.
    """
    graph = {name: set(imported(ast.parse(text))) & sources.keys() - {name} for name, text in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", ["l4sim", "validate_gpu"])
def test_no_circle(package: str) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    sources = {name_of(path): path.read_text(encoding="utf-8") for path in paths}
    sources.pop("l4sim", None)
    assert len(sources) > 40
    assert first_circle(sources) == []


def test_a_circle_is_found_where_an_import_is_late() -> None:
    late = {"a": "import b", "b": "def f():\n    from a import g"}
    assert set(first_circle(late)) == {"a", "b"}
    typed = {"a": "import b", "b": "if TYPE_CHECKING:\n    from a import G"}
    assert first_circle(typed) == []
