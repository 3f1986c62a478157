"""Processes that points run in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from l4sim.errors import InputError
from l4sim.sweeps.processes import Processes

PARENT = """
import os, time
from l4sim.sweeps.processes import Processes

if __name__ == "__main__":
    with Processes(1) as processes:
        print(processes.pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


def runs(process):
    """Whether a process still does: one that has ended has no command line, reaped or not."""
    try:
        return bool((process / "cmdline").read_bytes())
    except OSError:
        return False


def test_fewer_than_one_are_refused():
    with pytest.raises(InputError, match="jobs is 0, accepted is a whole number >= 1"):
        Processes(0)


@pytest.mark.slow
def test_they_are_kept_until_one_of_them_dies():
    with Processes(1) as processes:
        first = processes.pool.submit(os.getpid).result()
        assert processes.pool.submit(os.getpid).result() == first
        processes.replace()
        assert processes.pool.submit(os.getpid).result() != first


@pytest.mark.slow
def test_a_point_finds_what_it_needs_imported():
    with Processes(1) as processes:
        assert processes.pool.submit(eval, "'l4sim.sweeps.points' in __import__('sys').modules").result()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="sees processes in /proc")
def test_they_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert runs(worker)
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while runs(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not runs(worker)
