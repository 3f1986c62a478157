"""Repeats of one operator, timed: from the host, or as a CUDA graph between device events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from l4sim.calibration.fits.errors import FloatArray

Launch = Callable[[], Tensor]
SlownessAfter = Callable[[float], float]
"""Takes the seconds of work just done; returns how many times slower than the reference speed the device was."""

WARM_UPS = 2
LEAST_REPEATS, MOST_REPEATS = 7, 50
# Long enough for the host to queue hundreds of launches behind it.
_HEAD_START_CYCLES = 20_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """What the repeats took, and the result that the first launch gave in the last repeat."""

    seconds: FloatArray
    """Seconds per launch, shape ``[repeats]``; at the reference speed, if there is a slowness."""
    timed: str
    result: Tensor
    slowness: float | None = None
    """Median over the repeats."""


class Timer(Protocol):
    """Times launches of one operator, each on data of its own."""

    def time(self, launches: Sequence[Launch]) -> Timing:
        """Repeat all launches; the time of one is that of a repeat, divided by their number."""
        ...


class AtReferenceSpeed:
    """Converts measured seconds to the reference speed, by the device's slowness at that time, if that is known."""

    def __init__(self, slowness: SlownessAfter | None) -> None:
        self._slowness = slowness
        self._factors: list[float] = []
        if slowness is not None:
            # Infinite work: a new reading now, however long ago the last one was.
            slowness(math.inf)

    def seconds(self, measured_s: float) -> float:
        """What a repeat would have taken at the reference speed."""
        if self._slowness is None:
            return measured_s
        self._factors.append(self._slowness(measured_s))
        return measured_s / self._factors[-1]

    @property
    def slowness(self) -> float | None:
        """The median over the repeats; None if it is not known."""
        return float(np.median(self._factors)) if self._factors else None


class HostTimer:
    """From the first call to the last result, as the host sees it."""

    def __init__(
        self,
        synchronize: Callable[[], None],
        sample_s: float,
        now: Callable[[], float] = time.perf_counter,
        slowness: SlownessAfter | None = None,
    ) -> None:
        self._synchronize = synchronize
        self._sample_s = sample_s
        self._now = now
        self._slowness = slowness

    def time(self, launches: Sequence[Launch]) -> Timing:
        """Repeat for ``sample_s``, at least 7 and at most 50 times."""
        for _ in range(WARM_UPS):
            result = self._pass(launches)
        speed = AtReferenceSpeed(self._slowness)
        taken: list[float] = []
        while len(taken) < LEAST_REPEATS or (sum(taken) < self._sample_s and len(taken) < MOST_REPEATS):
            self._synchronize()
            start_s = self._now()
            result = self._pass(launches)
            taken.append(speed.seconds(self._now() - start_s))
        return Timing(np.array(taken) / len(launches), "host", result, speed.slowness)

    def _pass(self, launches: Sequence[Launch]) -> Tensor:
        result = launches[0]()
        for launch in launches[1:]:
            launch()
        self._synchronize()
        return result


class StreamTimer:
    """Launches queued in a stream, between device events: as steps run that are not captured in a graph."""

    def __init__(self, device: torch.device, sample_s: float) -> None:
        self._events = _Events(device, sample_s)

    def time(self, launches: Sequence[Launch]) -> Timing:
        """Repeat for ``sample_s``, at least 7 and at most 50 times."""
        return _timed_in_stream(self._events, launches, head_start=False)


class GraphTimer:
    """Replays of a CUDA graph of all launches, between device events; launches in a stream if it cannot be captured."""

    def __init__(self, device: torch.device, sample_s: float) -> None:
        self._device = device
        self._events = _Events(device, sample_s)

    def time(self, launches: Sequence[Launch]) -> Timing:
        """Repeat for ``sample_s``, at least 7 and at most 50 times; the result is poisoned before the last repeat."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        # Lazy initialisation must happen before a capture, on another stream, as PyTorch asks.
        with torch.cuda.stream(stream):
            launches[0]()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        torch.cuda.synchronize(self._device)
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = _all(launches)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            torch.cuda.synchronize(self._device)
            # The host must not be what is timed.
            return _timed_in_stream(self._events, launches, head_start=True)
        seconds = self._events.repeat(graph.replay, head_start=False) / len(launches)
        if result.is_floating_point():
            result.fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize(self._device)
        # The graph owns the result's memory.
        return Timing(seconds, "graph", result.clone())


class _Events:
    """Device events around repeats of something."""

    def __init__(self, device: torch.device, sample_s: float) -> None:
        self._device = device
        self._sample_s = sample_s

    def repeat(self, run: Callable[[], None], *, head_start: bool) -> FloatArray:
        """Seconds of each run, shape ``[repeats]``; a head start lets the host queue ahead of the device."""
        for _ in range(WARM_UPS):
            run()
        first_s = self._between(run, 1, head_start=head_start)[0]
        repeats = min(max(int(self._sample_s / max(first_s, 1e-9)), LEAST_REPEATS), MOST_REPEATS)
        return self._between(run, repeats, head_start=head_start)

    def _between(self, run: Callable[[], None], repeats: int, *, head_start: bool) -> FloatArray:
        pairs = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            if head_start:
                torch.cuda._sleep(_HEAD_START_CYCLES)  # type: ignore[no-untyped-call]
            start.record()
            run()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize(self._device)
        return np.array([start.elapsed_time(end) * 1e-3 for start, end in pairs])


def _timed_in_stream(events: _Events, launches: Sequence[Launch], *, head_start: bool) -> Timing:
    results: list[Tensor] = []

    def run() -> None:
        results[:] = [_all(launches)]

    seconds = events.repeat(run, head_start=head_start) / len(launches)
    return Timing(seconds, "stream", results[0])


def _all(launches: Sequence[Launch]) -> Tensor:
    """Launch all; returns the first one's result, which stays alive."""
    result = launches[0]()
    for launch in launches[1:]:
        launch()
    return result
