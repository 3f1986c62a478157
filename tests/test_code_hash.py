"""What a hash of code changes with, and what it does not."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType

import pytest

from l4sim.code_hash import object_hash, sources_hash
from l4sim.errors import InputError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, one of them in a folder of its own."""
    folder = tmp_path / "hashed_package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "build.py").write_text("def build(): return 1\n")
    (folder / "inner" / "__init__.py").write_text("ONE = 1\n")
    (folder / "notes.txt").write_text("a note")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "hashed_package"]:
        del sys.modules[name]


@pytest.mark.parametrize(("file", "counts"), [("build.py", True), ("inner/__init__.py", True), ("notes.txt", False)])
def test_every_source_of_the_package_counts_and_nothing_else(package, file, counts):
    before = sources_hash("hashed_package.build")
    (package / file).write_text("TWO = 2\n")
    assert (sources_hash("hashed_package.build") != before) is counts


def test_a_function_that_can_be_imported_counts_with_its_package(package):
    from hashed_package.build import build

    before = object_hash(build)
    (package / "inner" / "__init__.py").write_text("TWO = 2\n")
    assert object_hash(build) != before


def typed(text):
    """What a notebook that holds this text knows as ``build``."""
    notebook = ModuleType("__main__")
    exec(compile(text, "a cell", "exec"), notebook.__dict__)
    return notebook.__dict__["build"]


NOTEBOOK = """
LIMIT = 3

class Router:
    '''Sends on.'''
    most: int = 10

    def __init__(self, limit):
        self.limit = limit

    @property
    def half(self):
        return self.limit / 2

    @staticmethod
    def route(request):
        return {"a", "b", "c"} and 0

def helper(number):
    return helper(number - 1) if number else Router(LIMIT)

def build(setting):
    return helper(2)
"""


@pytest.mark.parametrize(
    "change",
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("/ 2", "/ 3"),
        ("and 0", "and 1"),
        ("most: int = 10", "most: int = 11"),
        ("- 1", "- 2"),
    ],
)
def test_in_a_notebook_all_that_it_refers_to_counts(change):
    assert object_hash(typed(NOTEBOOK.replace(*change))) != object_hash(typed(NOTEBOOK))


@pytest.mark.parametrize(
    "change",
    [
        ("\nLIMIT", "\n\n# Elsewhere, with a comment.\nLIMIT"),
        ("LIMIT = 3", "LIMIT = 3\nunused = open"),
        ("def build", "half = 1\n\ndef build"),
    ],
)
def test_in_a_notebook_lines_comments_and_what_it_does_not_refer_to_do_not_count(change):
    assert object_hash(typed(NOTEBOOK.replace(*change))) == object_hash(typed(NOTEBOOK))


@pytest.mark.slow
def test_it_is_the_same_in_another_process(tmp_path):
    import subprocess

    program = f"from l4sim.code_hash import object_hash\n{NOTEBOOK}\nprint(object_hash(build))"
    hashes = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(hashes) == 1


def around(value):
    return lambda: value


class Held:
    def __init__(self, value):
        self.value = value

    def build(self):
        return self.value


@pytest.mark.slow
@pytest.mark.parametrize("make", [around, lambda value: partial(around, value), Held, lambda value: Held(value).build])
def test_what_a_closure_a_partial_function_or_an_object_holds_counts(make):
    assert object_hash(make(1)) == object_hash(make(1))
    assert object_hash(make(1)) != object_hash(make(2))


def test_what_has_no_value_to_go_by_is_told_so(tmp_path):
    with (tmp_path / "open").open("w") as file, pytest.raises(InputError, match=r"cannot .*TextIOWrapper.*MODULE:"):
        object_hash(around(file))
