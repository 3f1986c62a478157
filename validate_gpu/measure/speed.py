"""How fast a device is just now, by a small iteration timed again and again.

A shared CPU takes up to twice as long for the same work, for milliseconds or for minutes: its core's other thread,
caches and memory are someone else's. Whatever the batch, steps slow down together to a few percent, so that all seconds
can be converted to one speed, the *reference speed*: that at which the reference iteration takes ``reference_s``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from l4sim.calibration.measured.folder import is_measured, read_measured
from l4sim.specs.model import load_model, with_layers
from validate_gpu.live.clock import seconds_of
from validate_gpu.measure.iteration_work import IterationWork
from validate_gpu.measure.points import IterationPoint
from validate_gpu.measure.timing import SlownessAfter

_CONTEXT_TOKENS = 256
_SETTLING = 51
# A reading takes a millisecond or two, and says little of what happens 100 ms later.
_EVERY_S = 0.01

Reading = Callable[[], float]
"""The seconds of the reference iteration now."""


def reference_iteration(device: torch.device) -> Reading | None:
    """What reads a device's speed: a decode step of one layer of ``tiny``; None on a GPU, whose speed is its own.

    Raises:
        InputError: no memory for it.
    """
    if device.type != "cpu":
        return None
    model = with_layers(load_model("tiny"), 1)
    work = IterationWork(
        model, device, kv_tokens=4 * _CONTEXT_TOKENS, max_num_seqs=1, max_tokens=_CONTEXT_TOKENS, seed=0
    )
    [launch] = work.work(IterationPoint(model, (_CONTEXT_TOKENS,))).launches
    now_s = seconds_of(device)

    def read() -> float:
        # Once untimed, to find in the caches what it uses, whatever ran before it.
        launch()
        start_s = now_s()
        launch()
        return now_s() - start_s

    return read


def reference_speed(device: torch.device, folder: Path) -> float | None:
    """The ``reference_s`` of points in a folder: what it was begun with, or what it is now; None without a reference.

    Raises:
        InputError: the folder's ``measured.json`` cannot be read; no memory for the reference iteration.
    """
    if is_measured(folder):
        return read_measured(folder).reference_s
    read = reference_iteration(device)
    return None if read is None else median(read() for _ in range(_SETTLING))


def slowness_of(device: torch.device, reference_s: float | None) -> SlownessAfter | None:
    """A device's slowness against a reference's seconds; None where there are none, or the device's speed is its own.

    Raises:
        InputError: no memory for the reference iteration.
    """
    read = reference_iteration(device)
    return None if read is None or reference_s is None else Slowness(read, reference_s).after


class Slowness:
    """How many times longer than ``reference_s`` the reference iteration takes, measured after every 10 ms of work."""

    def __init__(self, read: Reading, reference_s: float) -> None:
        self._read = read
        self._reference_s = reference_s
        self._last_s = read()
        self._since_s = 0.0

    def after(self, seconds: float) -> float:
        """The slowness during the work just done: the last reading, or its mean with a new one if that is due."""
        before_s = self._last_s
        self._since_s += seconds
        if self._since_s >= _EVERY_S:
            self._last_s = self._read()
            self._since_s = 0.0
        return (before_s + self._last_s) / 2 / self._reference_s
