"""The clock that iterations are timed by, and what must not run while they are."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def seconds_of(device: torch.device) -> Callable[[], float]:
    """A clock for work on a device that ends on the host: the wall's, or on one CPU thread that thread's CPU time.

    The latter stands still while other processes have the core, which the live engine is to have to itself.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


@contextmanager
def no_collections() -> Iterator[None]:
    """Keep Python's collector out of what is timed: among a long run's records, a full collection takes 100 ms."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
