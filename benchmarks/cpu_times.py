"""A pytest plugin that notes how much of the CPU each test took, its fixtures and the processes that it waited for
included: what `benchmarks.mutants` budgets by, since a clock tells of the machine's other work too.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

CPU_S = "cpu_s"
"""The property of a test case in the JUnit file."""

_BEGAN_S = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Note when a test's fixtures begin to be made."""
    item.stash[_BEGAN_S] = _used_s()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Note how much its fixtures and itself took."""
    try:
        yield
    finally:
        item.user_properties.append((CPU_S, round(_used_s() - item.stash[_BEGAN_S], 4)))


def _used_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
