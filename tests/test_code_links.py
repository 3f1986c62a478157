"""Documents that lead through the code: what a link names is defined in the file that it leads to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENTS = ("tour.md", "glossary.md")

_CODE_LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<target>[^)]+\.py)\)")


def links_in(text: str) -> list[tuple[str, str]]:
    return [(found["name"], found["target"]) for found in _CODE_LINK.finditer(text)]


def defines(tree: ast.AST, name: str) -> bool:
    """Whether a module or class defines a name, ``Class.method`` included."""
    first, _, rest = name.partition(".")
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef() | ast.FunctionDef() if node.name == first:
                return not rest or defines(node, rest)
            case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)) if found == first:
                return not rest
    return False


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_is_defined_where_its_link_leads(document: str) -> None:
    links = links_in((DOCS / document).read_text(encoding="utf-8"))
    assert len(links) > 30
    trees = {target: ast.parse((DOCS / target).read_text(encoding="utf-8")) for _, target in links}
    assert [(name, target) for name, target in links if not defines(trees[target], name)] == []


def test_a_name_that_is_not_defined_is_seen() -> None:
    tree = ast.parse("X = 1\ny: int = 2\nclass A:\n    def f(self): ...\nfrom b import C")
    assert all(defines(tree, name) for name in ("X", "y", "A", "A.f"))
    assert not any(defines(tree, name) for name in ("C", "A.g", "f", "X.f"))


def test_the_tour_and_the_glossary_are_found_from_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert all(f"]({document})" in index for document in DOCUMENTS)
