"""How names from outside the package are found, and what is said where one is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from l4sim.errors import InputError
from l4sim.plugins import find

BUNDLED = {"l4": 1, "l4:plan": 2}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes modules to where Python looks, and forgets them afterwards."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(name, text):
        (folder / f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Installs a distribution that offers one name at one place."""

    def install(distribution, name, value):
        info = tmp_path / distribution / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[l4sim.policies]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(tmp_path / distribution)

    return install


def test_a_bundled_name_is_what_it_was(module, offer):
    module("l4", "plan = 3\n")
    offer("taker", "l4", "l4:plan")
    assert find("l4sim.policies", "l4", BUNDLED) == 1
    assert find("l4sim.policies", "l4:plan", BUNDLED) == 2


def test_an_entry_point_goes_before_a_module(module, offer):
    module("found_first", "one = 1\ntwo = 2\n")
    offer("named", "found_first:one", "found_first:two")
    assert find("l4sim.policies", "found_first:one", BUNDLED) == 2


def test_an_attribute_may_lie_deeper(module):
    module("found_deep", "class A:\n    b = 5\n")
    assert find("l4sim.policies", "found_deep:A.b", BUNDLED) == 5


def test_the_working_directory_is_looked_in_last(module, tmp_path, monkeypatch):
    module("found_twice", "where = 'the path'\n")
    for name in ("found_twice", "found_here"):
        (tmp_path / f"{name}.py").write_text("where = 'here'\n")
    monkeypatch.chdir(tmp_path)
    assert find("l4sim.policies", "found_here:where", BUNDLED) == "here"
    assert find("l4sim.policies", "found_twice:where", BUNDLED) == "the path"


def test_the_same_package_found_twice_offers_one_thing(module, offer):
    module("found_once", "one = 1\n")
    offer("first", "one", "found_once:one")
    offer("second", "one", "found_once:one")
    assert find("l4sim.policies", "one", BUNDLED) == 1


def test_two_packages_that_offer_a_name_are_both_named(offer):
    offer("first", "mine", "a:b")
    offer("second", "mine", "c:d")
    with pytest.raises(InputError, match="'mine' is offered by several packages: accepted is one of a:b, c:d"):
        find("l4sim.policies", "mine", BUNDLED)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("l5", "", "^no policy 'l5': accepted are l4, l4:plan, .* entry point l4sim.policies, or MODULE:ATTRIBUTE$"),
        ("l4-plan", "", r"^no policy 'l4-plan': .*or MODULE:ATTRIBUTE \(did you mean l4:plan\?\)$"),
        ("l4:plam", "", r"^no policy 'l4:plam': .*\(did you mean l4:plan\?\); there is no module 'l4'$"),
        ("found_bad:build", "import nowhere", "'found_bad:build': found_bad cannot be imported .*'nowhere'"),
        ("found_bad:build", "def build(", r"found_bad cannot be imported \(SyntaxError"),
        ("found_bad:build", "1 / 0", r"found_bad cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("found_bad:build", "", "'found_bad:build': module 'found_bad' has no attribute 'build'"),
        ("found bad:build", "", "no policy 'found bad:build'"),
        ("", "", "no policy ''"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(module, name, text, complaint):
    module("found_bad", text)
    with pytest.raises(InputError, match=complaint) as refused:
        find("l4sim.policies", name, BUNDLED)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("use", ["import l4sim", "from l4sim.cli import main; main(['--help'])"])
def test_nothing_is_looked_for_before_a_name_asks_for_it(use):
    program = f"import atexit, sys\natexit.register(lambda: print('importlib.metadata' in sys.modules))\n{use}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
