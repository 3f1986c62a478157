"""Waiting in front of servers, by approximations that take arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MOST_LOAD = 0.95
"""Loads beyond are not waited out: their queue has not the time to become what it would in the end."""
HORIZON_S = 600.0
"""The time that they last. Ours; what matters is that overload is long and grows with the load."""


def waiting_probability(load: FloatArray, servers: FloatArray) -> FloatArray:
    """The probability that an arrival at an M/M/m queue waits.

    Source: Sakasegawa, Ann. Inst. Stat. Math. 29 (1977): load ** (sqrt(2 (m + 1)) - 1).
    """
    return np.asarray(np.clip(load, 0.0, MOST_LOAD) ** (np.sqrt(2 * (servers + 1)) - 1))


def mean_wait_s(
    load: FloatArray, servers: FloatArray, mean_s: FloatArray, square_s2: FloatArray, dispersion: FloatArray
) -> FloatArray:
    """Mean wait in a G/G/m queue with this first and second moment of the service time.

    ``dispersion`` is the arrivals' variance over mean, 1 for Poisson. Sakasegawa's M/M/m wait times
    (dispersion + cv²) / 2 (Allen and Cunneen 1978, with the dispersion of counts for that of gaps). Load beyond
    `MOST_LOAD` piles up over `HORIZON_S`. Shapes broadcast.
    """
    stable = np.minimum(load, MOST_LOAD)
    backlog_s = (load - stable) * HORIZON_S / 2
    mean = np.maximum(mean_s, 1e-12)
    spread = (dispersion + square_s2 / mean**2 - 1) / 2
    return np.asarray(waiting_probability(load, servers) / (servers * (1 - stable)) * mean * spread + backlog_s)
