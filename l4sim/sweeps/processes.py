"""Processes on this machine for points: started soon, kept over calls, replaced when one dies."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from threading import Thread

from l4sim.errors import InputError

# What a point needs, imported once, in the server that the processes are forked from.
_PRELOADED = ["l4sim.sweeps.points", "pandas", "scipy.special"]
# Not forked from this process, whose pyarrow and matplotlib may have threads, which do not survive it; on other systems
# numpy alone may have some.
_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


def prepare() -> None:
    """Begin to start processes, while this one goes on with its own imports; a second call does nothing."""
    if _METHOD == "forkserver":
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(_PRELOADED)
        forkserver.ensure_running()


class Processes:
    """So many processes, in a pool that outlives a call: what they have loaded serves the points of the next one.

    Raises:
        InputError: fewer than one.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise InputError(f"jobs is {jobs}, accepted is a whole number >= 1")
        self.jobs = jobs
        prepare()
        self.pool = self._new()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def replace(self) -> None:
        """A new pool for one that broke."""
        self.pool.shutdown(cancel_futures=True)
        self.pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.jobs, multiprocessing.get_context(_METHOD), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever: the pipe that it waits at is its own as well."""
    Thread(target=_wait_for_end_of_parent, daemon=True).start()


def _wait_for_end_of_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
