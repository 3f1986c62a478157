"""Policies decide; they know neither the simulator's clock nor a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import l4sim.policies

_LOAD_ALL = """
import importlib, pkgutil, sys
import l4sim.policies
names = [module.name for module in pkgutil.walk_packages(l4sim.policies.__path__, "l4sim.policies.")]
for name in names:
    importlib.import_module(name)
loaded = {name for name in sys.modules if name.split(".")[0] in ("simpy", "torch", "flashinfer")}
loaded |= {name for name in sys.modules if name.startswith(("l4sim.simulator", "validate_gpu"))}
print(len(names), *sorted(loaded))
"""


@pytest.mark.slow
def test_no_policy_imports_simpy_torch_or_the_simulator():
    ran = subprocess.run([sys.executable, "-c", _LOAD_ALL], capture_output=True, text=True, check=True)
    modules, *loaded = ran.stdout.split()
    below = list(Path(l4sim.policies.__path__[0]).rglob("*.py"))
    assert int(modules) == len(below) - 1, "every file but the package's own __init__"
    assert loaded == []


@pytest.mark.slow
def test_what_a_policy_is_built_from_knows_nothing_of_l4():
    load = "import l4sim.policies.policy, sys; print(*(name for name in sys.modules if 'policies.l4' in name))"
    ran = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
