"""How much a figure of one run would change in another run of the same traffic: the circular block bootstrap.

Requests that arrive together meet the same queues, so they are not independent. The bootstrap therefore draws blocks
of consecutive requests, with replacement, from the requests laid in a circle (Politis & Romano 1992, after Künsch
1989). Blocks are as long as the series' own autocorrelation asks for (Politis & White 2004, as corrected by Patton,
Politis & White 2009). `scipy.stats.bootstrap` draws single observations and has no blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# So many draws tell their standard deviation to 1 / sqrt(2 draws): 4 %, and 7 % for very long runs, for memory's sake.
_MOST_DRAWS, _FEWEST_DRAWS = 300, 100
_DRAWN_VALUES = 10_000_000
_SEED = 0

# Politis & White's own: autocorrelations within so many standard errors of 0, several lags in a row, count as 0.
_STANDARD_ERRORS = 2.0
_LAGS_IN_A_ROW = 5


def block_length(series: FloatArray) -> int:
    """How many consecutive values of a series make a block, at least 1; shape ``[n]``, in order of time.

    It minimises the mean squared error of the bootstrap's variance of the mean; autocovariances are estimated through
    a flat-top window. Too few blocks are for the caller to refuse.
    Source: Politis & White (2004), Econometric Reviews 23; constants for the circular block
    bootstrap from Patton, Politis & White (2009).
    """
    count = len(series)
    deviation = series - series.mean()
    variance = float(np.square(deviation).mean())
    if count < 3 or variance <= 1e-18:
        return 1
    most = min(count - 1, math.ceil(math.sqrt(count)) + _LAGS_IN_A_ROW)
    # Of all lags at once, zero-padded so that nothing wraps around. (Dot products of such lengths would have BLAS start
    # threads, which wait for one another where other processes are at work.)
    transformed = np.fft.rfft(deviation, 2 * count)
    covariance = np.fft.irfft(np.abs(transformed) ** 2, 2 * count)[: most + 1] / count
    small = np.abs(covariance[1 : most + 1]) < _STANDARD_ERRORS * variance * math.sqrt(math.log10(count) / count)
    last = _last_correlated(small)
    window = min(2 * max(last, 1), most)
    lags = np.arange(1, window + 1)
    taper = np.clip(2 * (1 - lags / window), 0.0, 1.0)
    spectrum = covariance[0] + 2 * float(taper @ covariance[1 : window + 1])
    slope = 2 * float((taper * lags) @ covariance[1 : window + 1])
    if spectrum <= 0:
        return 1
    return max(1, math.ceil(math.cbrt(1.5 * slope**2 / spectrum**2 * count)))


def _last_correlated(small: NDArray[np.bool_]) -> int:
    """The lag behind which enough in a row are small; the last large one where none are so many."""
    run = 0
    for lag, is_small in enumerate(small.tolist(), 1):
        run = run + 1 if is_small else 0
        if run == _LAGS_IN_A_ROW:
            return lag - _LAGS_IN_A_ROW
    large = np.flatnonzero(~small)
    return int(large[-1]) + 1 if len(large) else 0


@dataclass(frozen=True, eq=False)
class Resamples:
    """Draws of blocks from ``count`` values in a circle, the same ones for the same count and block length."""

    count: int
    block: int
    """Values in a block."""

    @property
    def blocks(self) -> int:
        """Blocks in a draw: as many as hold about ``count`` values."""
        return max(1, round(self.count / self.block))

    @property
    def draws(self) -> int:
        """How many draws there are."""
        return min(_MOST_DRAWS, max(_FEWEST_DRAWS, _DRAWN_VALUES // self.count))

    @cached_property
    def _starts(self) -> IntArray:
        return np.random.default_rng(_SEED).integers(0, self.count, (self.draws, self.blocks))

    def sums(self, values: FloatArray) -> FloatArray:
        """Of columns, shape ``[count, columns]``, the sum over each draw, shape ``[draws, columns]``."""
        circle = np.concatenate([values, values[: self.block - 1]])
        before = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(circle, axis=0)])
        of_block = before[self.block :] - before[: self.count]
        drawn: FloatArray = of_block[self._starts].sum(axis=1)
        return drawn

    @cached_property
    def _times_drawn(self) -> NDArray[np.int16]:
        """How often each value is in each draw, shape ``[count, draws]``."""
        begun = np.zeros((self.count, self.draws), dtype=np.int16)
        np.add.at(begun, (self._starts, np.arange(self.draws)[:, None]), 1)
        # A value is in every block that began fewer than a block before it, around the circle.
        circle = np.concatenate([begun[self.count - self.block + 1 :], begun])
        total = np.zeros((len(circle) + 1, self.draws), dtype=np.int16)
        np.cumsum(circle, axis=0, out=total[1:])
        return total[self.block :] - total[: self.count]

    def upper_quantiles(self, values: FloatArray, share: float, among: IntArray, drawn: FloatArray) -> FloatArray:
        """The value that a share of each draw lies above, shape ``[draws]``, of the values at ``among`` alone.

        ``drawn`` is how many of those each draw has; NaN where it has none.
        """
        ordered = among[np.argsort(-values[among], kind="stable")]
        wanted = share * drawn
        # Only the largest values matter; how many of them a draw of unlucky blocks needs is found by doubling.
        kept = min(len(ordered), max(16, math.ceil(3 * share * len(ordered))))
        while True:
            above = np.cumsum(self._times_drawn[ordered[:kept]], axis=0, dtype=np.int32)
            if kept == len(ordered) or np.all(above[-1] > wanted):
                break
            kept = min(2 * kept, len(ordered))
        place = np.minimum((above <= wanted).sum(axis=0), kept - 1)
        return np.where(wanted > 0, values[ordered[place]], np.nan)
