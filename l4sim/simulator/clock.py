"""Simulated time. The only module that imports simpy."""

from __future__ import annotations

from typing import Any

import simpy

from l4sim.runtime.clock import Action


class SimulatedClock:
    """Calls actions at moments of simulated time; equal moments in the order in which they were asked for."""

    def __init__(self, after: Action | None = None) -> None:
        """``after`` is called after every action."""
        self._environment = simpy.Environment()
        self._after = after
        self._stop = self._environment.event()

    @property
    def now_s(self) -> float:
        """Seconds since the simulation's start."""
        return self._environment.now

    def at(self, time_s: float, action: Action, value: Any = None) -> None:
        """Call ``action`` at a moment that is not past."""
        # Timeout is used rather than a process: one event per moment, no generator to resume.
        delay_s = time_s - self._environment.now
        callbacks = self._environment.timeout(delay_s, value).callbacks
        assert callbacks is not None
        callbacks.append(action)
        if self._after is not None:
            callbacks.append(self._after)

    def run(self) -> None:
        """Run until `stop` is called or nothing is left to happen."""
        try:
            self._environment.run(until=self._stop)
        except RuntimeError as error:
            # simpy's word for "no event is left and the one waited for was not triggered".
            if "No scheduled events left" not in str(error):
                raise

    def stop(self) -> None:
        """End `run` once the actions of this moment are done."""
        if not self._stop.triggered:
            self._stop.succeed()
