"""The wall's clock, with the simulated one's interface, and the loop that serves messages and moments."""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from l4sim.runtime.clock import Action


class Due(NamedTuple):
    """A moment that has come."""

    value: Any


class WallClock:
    """Seconds since an epoch that all processes of a run share (Linux's monotonic clock is the machine's)."""

    def __init__(self, epoch_s: float, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._epoch_s = epoch_s
        self._monotonic_s = monotonic_s
        self._moments: list[tuple[float, int, Action, Any]] = []
        self._asked = 0
        self._stopped = False

    @property
    def now_s(self) -> float:
        """Seconds since the epoch; negative before it."""
        return self._monotonic_s() - self._epoch_s

    def at(self, time_s: float, action: Action, value: Any = None) -> None:
        """Call ``action`` at a moment, or as soon as it can be called; equal moments in the order of asking."""
        self._asked += 1
        heappush(self._moments, (time_s, self._asked, action, value))

    def stop(self) -> None:
        """End `serve`."""
        self._stopped = True

    def serve(self, inbox: SimpleQueue[Any], deliver: Callable[[Any], None]) -> None:
        """Deliver what comes in, and call what is due, until `stop` is called.

        Everything that has come in is delivered before the next action, as the simulator delivers everything up to a
        moment before an iteration starts.
        """
        while not self._stopped:
            try:
                deliver(inbox.get(timeout=self._idle_s()) if self._idle_s() != 0 else inbox.get_nowait())
                continue
            except Empty:
                pass
            if self._moments and self._moments[0][0] <= self.now_s:
                _, _, action, value = heappop(self._moments)
                action(Due(value))

    def _idle_s(self) -> float | None:
        """Seconds until the next moment, 0 if it has come; None if there is none."""
        return max(self._moments[0][0] - self.now_s, 0.0) if self._moments else None
