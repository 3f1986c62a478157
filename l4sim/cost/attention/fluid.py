"""Seconds of a kernel's thread blocks: issued in order to SMs, which share the memory's bandwidth.

Ours. An SM's *latency load* is the time that its blocks need when memory is no bottleneck (start-up, then a time per KV
block); *memory time* is what all bytes need at full bandwidth. While ``a`` SMs are at work, each advances at the slower
of the two, smoothly joined, and memory serves the bytes of all ``a`` at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace
from itertools import chain, repeat
from math import gcd
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


def levels(
    loads: Sequence[float], counts: Sequence[int], slots: int, together: int = 1, passes: int = 1
) -> list[tuple[float, int]]:
    """Issue blocks in order, each to the slot that is free first, and tell how long how many slots are busy.

    A slot is room for one thread block on an SM.

    ``loads`` (in order of issue, >= 0) are seconds of a block, ``counts`` the number of such blocks. Heads multiply
    them: ``together`` of them are issued one right after the other, and the whole sequence is issued ``passes`` times.

    Returns the steps between the slots' sorted loads, each with the number of slots that are at work during it.
    """
    heads = together * passes
    left = heads * sum(counts)
    if left > slots:
        return _waiting_levels(loads, counts, slots, together, passes)
    steps, done = [], 0.0
    for load, count in sorted(zip(loads, counts, strict=True)):
        if load > done and count:
            steps.append((load - done, left))
            done = load
        left -= heads * count
    return steps


def _waiting_levels(
    loads: Sequence[float], counts: Sequence[int], slots: int, together: int, passes: int
) -> list[tuple[float, int]]:
    """``levels`` of more blocks than slots."""
    # Slots in groups of gcd(together, slots): equal blocks, issued together, keep the slots of a group equal.
    group = gcd(together, slots)
    each = together // group
    runs = [(load, each * count) for load, count in _runs(loads, counts)]
    if len(runs) == 1:
        runs, passes = [(runs[0][0], runs[0][1] * passes)], 1
    heap = [0.0] * (slots // group)
    for load, left in chain.from_iterable(repeat(runs, passes)):
        # Of unequal lengths nearly every run is of one block, thousands to a batch.
        if left == 1:
            heapreplace(heap, heap[0] + load)
            continue
        if left >= len(heap) and heap[0] + load >= max(heap):
            # Every slot gets one of equal blocks before any gets its second: whole waves at a time.
            waves, left = divmod(left, len(heap))
            heap = [busy_s + waves * load for busy_s in heap]
        for _ in range(left):
            heapreplace(heap, heap[0] + load)
    steps, done, left = [], 0.0, slots
    for busy_s in sorted(heap):
        if busy_s > done:
            steps.append((busy_s - done, left))
            done = busy_s
        left -= group
    return steps


def _runs(loads: Sequence[float], counts: Sequence[int]) -> list[tuple[float, int]]:
    """Loads and counts, with neighbours of equal load merged into one entry."""
    runs: list[tuple[float, int]] = []
    last_load, total = -1.0, 0
    for load, count in zip(loads, counts, strict=True):
        if load != last_load:
            if total:
                runs.append((last_load, total))
            last_load, total = load, 0
        total += count
    runs.append((last_load, total))
    return runs


def drain_s(steps_s: FloatArray, pressure: FloatArray, sharpness: float) -> FloatArray:
    """Seconds until all slots of many batches are done; summed over the last axis.

    ``pressure`` (shape of ``steps_s``) is the ratio of the time that memory needs to the latency load while a step
    lasts. The two are joined by a norm of order ``sharpness``: infinity would be the larger of them.
    """
    return np.asarray((steps_s * (1.0 + pressure**sharpness) ** (1.0 / sharpness)).sum(axis=-1))


def issued_s(
    loads: Sequence[float],
    counts: Sequence[int],
    *,
    slots: int,
    together: int = 1,
    passes: int = 1,
    exposed_s: float,
    memory_s: float,
    sharpness: float,
) -> float:
    """Seconds of blocks issued in order (see ``levels``) that read their bytes in ``memory_s`` at full bandwidth.

    ``exposed_s`` is the part of one block's load during which its slot reads nothing. What ``drain_s`` is for many
    batches, in plain numbers: NumPy would take several times as long for one.
    """
    load_s = together * passes * sum(map(mul, loads, counts))
    idle = exposed_s * together * passes * sum(counts) / load_s
    each = memory_s / load_s
    order = 1.0 / sharpness
    steps = levels(loads, counts, slots, together, passes)
    return float(sum([step_s * (1.0 + (idle + each * at_work) ** sharpness) ** order for step_s, at_work in steps]))
