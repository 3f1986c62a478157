"""Arrival processes: when requests (or sessions) come.

A process is a frozen set of parameters; ``times`` is a pure function of them and of a generator. Time 0 is where
observation begins, and the first arrival comes one gap later. Non-homogeneous processes are made by inversion: a
unit-rate Poisson process is mapped through the inverse of the cumulative rate (Çinlar's method), which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from l4sim.workload.synth.checks import require
from l4sim.workload.trace import FloatArray

_CHUNK = 4096
_WEIBULL_CV = (0.02, 100.0)
_DIURNAL_STEPS = 1440


class Arrivals(Protocol):
    """An arrival process."""

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """Arrival times in seconds, float64 ascending: the first ``requests``, or all up to ``duration_s``.

        Raises InputError unless exactly one of the two is given and positive.
        """
        ...


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Everything arrives at 0: for closed loops, and to see how a cluster drains."""

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``; draws nothing.

        Raises InputError where no number of requests is given: within a duration there is no end of them.
        """
        require(requests is not None, "at-once arrivals: give a number of requests, not a duration")
        require_extent(requests, duration_s)
        return np.zeros(requests or 0)


@dataclass(frozen=True, slots=True)
class Constant:
    """Evenly spaced arrivals at 1/rate, 2/rate, ..."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _require_rate("constant", self.rate_per_s)

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``; draws nothing."""
        require_extent(requests, duration_s)
        count = requests if requests is not None else math.floor(self.rate_per_s * (duration_s or 0.0))
        return np.arange(1, count + 1) / self.rate_per_s


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent exponential gaps (CV 1)."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _require_rate("poisson", self.rate_per_s)

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``."""
        return _renewal(lambda n: rng.standard_exponential(n) / self.rate_per_s, requests, duration_s)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Independent Gamma gaps of mean 1/rate and the given coefficient of variation (CV > 1 is bursty)."""

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        _require_rate("gamma", self.rate_per_s)
        require(0 < self.cv < math.inf, f"gamma arrivals: cv must be a number > 0, not {self.cv}")

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``."""
        shape = self.cv**-2
        scale = 1 / (shape * self.rate_per_s)
        return _renewal(lambda n: rng.standard_gamma(shape, n) * scale, requests, duration_s)


@dataclass(frozen=True, slots=True)
class Weibull:
    """Independent Weibull gaps of mean 1/rate and the given coefficient of variation."""

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        _require_rate("weibull", self.rate_per_s)
        low, high = _WEIBULL_CV
        require(low <= self.cv <= high, f"weibull arrivals: cv must be from {low} to {high}, not {self.cv}")

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``."""
        shape = _weibull_shape(self.cv)
        scale = 1 / (self.rate_per_s * math.gamma(1 + 1 / shape))
        return _renewal(lambda n: rng.weibull(shape, n) * scale, requests, duration_s)


@dataclass(frozen=True, slots=True)
class OnOff:
    """A two-state Markov-modulated Poisson process, started in its stationary state.

    ``rate_per_s`` is the long-run mean over both states; the time in each is exponential.
    """

    rate_per_s: float
    on_s: float
    """Mean seconds of an on period."""
    off_s: float
    """Mean seconds of an off period."""
    off_ratio: float = 0.0
    """The off state's rate over the on state's, in [0, 1]: 0 is silence, 1 a plain Poisson process."""

    def __post_init__(self) -> None:
        _require_rate("onoff", self.rate_per_s)
        require(0 < self.on_s < math.inf, f"onoff arrivals: on_s must be seconds > 0, not {self.on_s}")
        require(0 < self.off_s < math.inf, f"onoff arrivals: off_s must be seconds > 0, not {self.off_s}")
        require(0 <= self.off_ratio <= 1, f"onoff arrivals: off_ratio must be from 0 to 1, not {self.off_ratio}")

    @property
    def on_rate_per_s(self) -> float:
        """The rate within on periods, 1/s."""
        return self.rate_per_s * (self.on_s + self.off_s) / (self.on_s + self.off_ratio * self.off_s)

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``."""
        require_extent(requests, duration_s)
        starts_on = rng.random() < self.on_s / (self.on_s + self.off_s)
        states = ((self.on_s, self.on_rate_per_s), (self.off_s, self.off_ratio * self.on_rate_per_s))
        stay_s, rates = np.array(states if starts_on else states[::-1]).T
        unit = _cumulate(rng.standard_exponential, requests, None) if requests is not None else np.zeros(1)
        edges_s, expected = np.zeros(1), np.zeros(1)
        while expected[-1] <= unit[-1] or edges_s[-1] <= (duration_s or 0.0):
            stays = rng.standard_exponential((_CHUNK // 2, 2)) * stay_s
            edges_s = np.append(edges_s, edges_s[-1] + stays.cumsum())
            expected = np.append(expected, expected[-1] + (stays * rates).cumsum())
        if duration_s is not None:
            unit = _cumulate(rng.standard_exponential, None, float(np.interp(duration_s, edges_s, expected)))
        return np.interp(unit, expected, edges_s)


@dataclass(frozen=True, slots=True)
class Piecewise:
    """A Poisson process whose rate is constant in each segment; after the last segment the first follows again."""

    segments: tuple[tuple[float, float], ...]
    """(seconds, requests per second) of each segment."""

    def __post_init__(self) -> None:
        require(len(self.segments) > 0, "piecewise arrivals: segments must hold at least one (seconds, rate)")
        for number, (seconds, rate_per_s) in enumerate(self.segments, 1):
            require(
                0 < seconds < math.inf and 0 <= rate_per_s < math.inf,
                f"piecewise arrivals: segment {number} must have seconds > 0 and a rate >= 0, "
                f"not {seconds} s at {rate_per_s}/s",
            )
        require(any(rate > 0 for _, rate in self.segments), "piecewise arrivals: one segment's rate must be > 0")

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``."""
        seconds, rates = np.array(self.segments, dtype=np.float64).T
        return _cyclic(
            rng, np.append(0, seconds.cumsum()), np.append(0, (seconds * rates).cumsum()), requests, duration_s
        )


@dataclass(frozen=True, slots=True)
class Diurnal:
    """A Poisson process with rate ``rate_per_s * (1 + amplitude * cos(2π (t - peak_s) / period_s))``.

    The rate is held at its mean over each 1/1440 of the period (a minute of a day).
    """

    rate_per_s: float
    amplitude: float
    """Swing around the mean rate, in [0, 1]: at 1 the trough is silent."""
    period_s: float = 86400.0
    peak_s: float = 0.0
    """Seconds from the trace's start to a peak."""

    def __post_init__(self) -> None:
        _require_rate("diurnal", self.rate_per_s)
        require(0 <= self.amplitude <= 1, f"diurnal arrivals: amplitude must be from 0 to 1, not {self.amplitude}")
        require(0 < self.period_s < math.inf, f"diurnal arrivals: period_s must be seconds > 0, not {self.period_s}")
        require(math.isfinite(self.peak_s), f"diurnal arrivals: peak_s must be finite seconds, not {self.peak_s}")

    def expected(self, t_s: FloatArray) -> FloatArray:
        """Expected arrivals in [0, t): the integral of the rate."""
        phase = 2 * np.pi / self.period_s
        swing = (np.sin(phase * (t_s - self.peak_s)) + np.sin(phase * self.peak_s)) / phase
        return np.asarray(self.rate_per_s * (t_s + self.amplitude * swing))

    def times(
        self, rng: np.random.Generator, *, requests: int | None = None, duration_s: float | None = None
    ) -> FloatArray:
        """See ``Arrivals``."""
        edges_s = np.linspace(0, self.period_s, _DIURNAL_STEPS + 1)
        return _cyclic(rng, edges_s, np.maximum.accumulate(self.expected(edges_s)), requests, duration_s)


def require_extent(requests: int | None, duration_s: float | None) -> None:
    """Raise InputError unless exactly one of the two is given, and it is positive."""
    require((requests is None) != (duration_s is None), "give either a number of requests or a duration in seconds")
    require(requests is None or requests >= 1, f"requests must be an integer >= 1, not {requests}")
    require(duration_s is None or 0 < duration_s < math.inf, f"duration must be seconds > 0, not {duration_s}")


def _require_rate(process: str, rate_per_s: float) -> None:
    require(
        0 < rate_per_s < math.inf, f"{process} arrivals: the rate must be a number > 0 per second, not {rate_per_s}"
    )


def _renewal(draw_gaps: Callable[[int], FloatArray], requests: int | None, duration_s: float | None) -> FloatArray:
    """Arrival times of a process with independent gaps: the first ``requests``, or all up to ``duration_s``."""
    require_extent(requests, duration_s)
    return _cumulate(draw_gaps, requests, duration_s)


def _cumulate(draw_gaps: Callable[[int], FloatArray], count: int | None, horizon: float | None) -> FloatArray:
    """Sums of gaps: the first ``count``, or, if that is None, all up to ``horizon``."""
    if horizon is None:
        return draw_gaps(count or 0).cumsum()
    chunks = [draw_gaps(_CHUNK).cumsum()]
    while chunks[-1][-1] <= horizon:
        chunks.append(chunks[-1][-1] + draw_gaps(_CHUNK).cumsum())
    times = np.concatenate(chunks)
    return times[: np.searchsorted(times, horizon, side="right")]


def _cyclic(
    rng: np.random.Generator, edges_s: FloatArray, expected: FloatArray, requests: int | None, duration_s: float | None
) -> FloatArray:
    """A Poisson process by inversion of a cumulative rate that repeats.

    ``edges_s`` and ``expected`` (cumulative arrivals at the edges), both from 0, describe one period.
    """
    require_extent(requests, duration_s)
    horizon = None
    if duration_s is not None:
        periods, rest_s = divmod(duration_s, edges_s[-1])
        horizon = float(periods * expected[-1] + np.interp(rest_s, edges_s, expected))
    unit = _cumulate(rng.standard_exponential, requests, horizon)
    cycle, rest = np.divmod(unit, expected[-1])
    # Two neighbours at a period's edge can swap by one rounding.
    return np.sort(cycle * edges_s[-1] + np.interp(rest, expected, edges_s))


def _weibull_shape(cv: float) -> float:
    """The shape k with Γ(1 + 2/k) / Γ(1 + 1/k)² = 1 + cv²."""
    from scipy.optimize import brentq

    def excess(shape: float) -> float:
        return math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape) - math.log1p(cv * cv)

    return float(brentq(excess, 0.1, 100.0))
