"""A pytest plugin that runs a tree's benchmarks by turns with another tree's; see `benchmarks.pairs`.

Loaded by its file into the process of each tree, so it imports nothing of either. It stands in for pytest-benchmark's
fixture: what a benchmark would time runs here whenever it is this tree's turn.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from multiprocessing.connection import Client
from pathlib import Path

import pytest

ENOUGH_S = 0.2
"""A turn ends once it has taken so long (ours): long beside a call of some µs, short beside changes of the machine."""
CONNECTION = pytest.StashKey()


def cpu_s():
    """Seconds of CPU, user and system, of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def forget_peak():
    """Let the peak of this process's memory begin anew (Linux alone: `man proc_pid_clear_refs`)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib():
    """The most memory that this process has had since `forget_peak`, or that any of its children ever had."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own_kib = int(status["VmHWM"].split()[0])
    return max(own_kib, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


class Turns:
    """The fixture `benchmark`, as far as benchmarks here use it."""

    stats = None
    """As where benchmarks are disabled, so that no test looks at its own time."""

    def __init__(self, connection, node):
        self._connection = connection
        self._node = node

    def __call__(self, function, *args, **kwargs):
        """Run the function whenever it is this tree's turn."""
        begun_s = cpu_s()
        function(*args, **kwargs)
        once_s = max(cpu_s() - begun_s, 1e-6)
        return self.pedantic(function, args, kwargs, rounds=1000, iterations=max(round(ENOUGH_S / 100 / once_s), 1))

    def pedantic(self, function, args=(), kwargs=None, setup=None, rounds=1, warmup_rounds=0, iterations=1):
        """The same, of so many rounds a turn if they are not too long; the first turn is the warm-up."""
        result = None
        self._connection.send(("ready", self._node))
        while self._connection.recv() == "go":
            forget_peak()
            seconds = []
            left_s = ENOUGH_S
            while left_s > 0 and len(seconds) < rounds:
                if setup is not None:
                    args, kwargs = setup()
                begun_s = cpu_s()
                for _ in range(iterations):
                    result = function(*args, **(kwargs or {}))
                took_s = cpu_s() - begun_s
                left_s -= took_s
                seconds.append(took_s / iterations)
            self._connection.send(("ran", (statistics.median(seconds), peak_mib())))
        return result


@pytest.fixture
def benchmark(request):
    return Turns(request.config.stash[CONNECTION], request.node.nodeid)


def pytest_configure(config):
    connection = Client(os.environ["PAIRS_ADDRESS"])
    connection.send(os.environ["PAIRS_TREE"])
    config.stash[CONNECTION] = connection


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Keep the benchmarks that the other tree has too, in the same order."""
    by_node = {item.nodeid: item for item in items if "benchmark" in item.fixturenames}
    connection = config.stash[CONNECTION]
    connection.send(list(by_node))
    items[:] = [by_node[node] for node in connection.recv()]


def pytest_runtest_teardown(item):
    """Whatever has become of it."""
    item.config.stash[CONNECTION].send(("ended", item.nodeid))
