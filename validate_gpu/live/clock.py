"""The clock that iterations are timed by."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds_of(device: torch.device) -> Callable[[], float]:
    """A clock for work on a device that ends on the host: the wall's, or on one CPU thread that thread's CPU time.

    The latter stands still while other processes have the core, which the live engine is to have to itself.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter
