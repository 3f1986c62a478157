"""Waiting in front of servers, by approximations that take arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_MOST_LOAD = 0.999
"""Loads beyond are taken for this one: what they mean is told by the load itself."""


def waiting_probability(load: FloatArray, servers: FloatArray) -> FloatArray:
    """The probability that an arrival at an M/M/m queue waits.

    Source: Sakasegawa, Ann. Inst. Stat. Math. 29 (1977): load ** (sqrt(2 (m + 1)) - 1).
    """
    return np.asarray(np.minimum(load, _MOST_LOAD) ** (np.sqrt(2 * (servers + 1)) - 1))


def mean_wait_s(load: FloatArray, servers: FloatArray, mean_s: FloatArray, square_s2: FloatArray) -> FloatArray:
    """Mean wait in an M/G/m queue with this first and second moment of the service time.

    Sakasegawa's M/M/m wait times (1 + cv²) / 2 (Lee and Longton 1959). All shapes alike or broadcast.
    """
    stable = np.minimum(load, _MOST_LOAD)
    spread = square_s2 / np.maximum(mean_s, 1e-12) / 2
    return np.asarray(waiting_probability(load, servers) / (servers * (1 - stable)) * spread)
