"""Thread blocks on a GPU as a fluid: blocks issued in order to SMs, memory bandwidth shared among the SMs at work.

Ours. An SM's *latency load* is the time that its blocks need when memory is no bottleneck (start-up, then a time per KV
block); *memory time* is what all bytes need at full bandwidth. While ``a`` SMs are at work, each advances at the slower
of the two, smoothly joined, and memory serves the bytes of all ``a`` at once.
"""

from __future__ import annotations

from heapq import heapreplace
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


def levels(loads: FloatArray, counts: IntArray, slots: int, together: int) -> tuple[FloatArray, IntArray]:
    """Issue blocks in order, each to the slot that is free first: how the slots run empty.

    ``loads`` (shape ``[groups]``, in order of issue, >= 0) are seconds of a block, ``counts`` the number of such blocks
    divided by ``together``: equal blocks that are always issued one after the other (KV heads).

    Returns the steps between the slots' sorted loads, and how many slots are still at work during each.
    """
    if together * int(counts.sum()) <= slots:
        there = counts > 0
        loads, counts = loads[there], counts[there]
        order = loads.argsort()
        loads = loads[order]
        active = together * counts[order][::-1].cumsum()[::-1]
    else:
        # Slots in groups of gcd(together, slots): equal blocks, issued together, keep the slots of a group equal.
        group = gcd(together, slots)
        heap = [0.0] * (slots // group)
        for load in loads.repeat(counts * (together // group)).tolist():
            heapreplace(heap, heap[0] + load)
        heap.sort()
        loads = np.array(heap)
        active = np.arange(slots, 0, -group)
    steps = loads.copy()
    steps[1:] -= loads[:-1]
    return steps, active


def drain_s(steps_s: FloatArray, pressure: FloatArray, sharpness: float) -> Any:
    """Seconds until all slots are done; summed over the last axis.

    ``pressure`` (shape of ``steps_s``) is the ratio of the time that memory needs to the latency load while a step
    lasts. The two are joined by a norm of order ``sharpness``: infinity would be the larger of them.
    """
    return (steps_s * (1.0 + pressure**sharpness) ** (1.0 / sharpness)).sum(axis=-1)


def issued_s(
    loads: FloatArray,
    counts: IntArray,
    *,
    slots: int,
    together: int,
    exposed_s: float,
    memory_s: float,
    sharpness: float,
) -> float:
    """Seconds of blocks issued in order (see ``levels``) that read their bytes in ``memory_s`` at full bandwidth.

    ``exposed_s`` is the part of one block's load during which its slot reads nothing.
    """
    steps_s, active = levels(loads, counts, slots, together)
    blocks = together * int(counts.sum())
    pressure = (exposed_s * blocks + memory_s * active) / (together * float(loads @ counts))
    return float(drain_s(steps_s, pressure, sharpness))
