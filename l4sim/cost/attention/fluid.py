"""Thread blocks on a GPU as a fluid: blocks issued in order to SMs, memory bandwidth shared among the SMs at work.

Ours. An SM's *latency load* is the time that its blocks need when memory is no bottleneck (start-up, then a time per KV
block); the GPU's *memory time* is the time that all bytes need at full bandwidth. While ``a`` SMs are at work, each
advances at the slower of the two, smoothly joined, and memory serves the bytes of all ``a`` at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapreplace
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def list_schedule(blocks: Iterable[tuple[float, int]], slots: int, together: int) -> list[float]:
    """Loads of the slots after issuing blocks in order, each to the slot that is free first; unsorted, same units.

    ``blocks`` are (load, count) pairs, ``count`` a multiple of ``together``, the number of equal blocks that are always
    issued one after the other (KV heads). Slots are handled in groups of gcd(together, slots): equal blocks keep the
    slots of a group equal. One value is returned for each group.
    """
    group = gcd(together, slots)
    heap = [0.0] * (slots // group)
    for load, count in blocks:
        for _ in range(count // group):
            heapreplace(heap, heap[0] + load)
    return heap


def levels(loads: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Steps between the sorted loads, and how many slots are still at work during each.

    ``counts`` (shape of ``loads``) says how many slots have each load.
    """
    order = loads.argsort()
    ordered = loads[order]
    steps = ordered.copy()
    steps[1:] -= ordered[:-1]
    active = counts[order][::-1].cumsum()[::-1]
    return steps, active


def drain_s(steps_s: Any, active: Any, *, latency_s: Any, fixed_s: Any, memory_s: Any, sharpness: float) -> Any:
    """Seconds until all slots are done.

    ``steps_s`` and ``active`` (last axis: levels) are the latency loads' steps and the slots at work in each;
    ``latency_s`` is the sum of all slots' latency loads, ``fixed_s`` the part of it that no other slot's work hides,
    ``memory_s`` the time of all bytes at full bandwidth (leading axes only, or floats). Latency and bandwidth are
    joined by a norm of order ``sharpness``: infinity would be the larger of the two.
    """
    pressure = (np.asarray(fixed_s)[..., None] + np.asarray(memory_s)[..., None] * active) / np.asarray(latency_s)[
        ..., None
    ]
    return (steps_s * (1.0 + pressure**sharpness) ** (1.0 / sharpness)).sum(axis=-1)
