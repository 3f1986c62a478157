"""Simulated time. The only module that imports simpy."""

from __future__ import annotations

from typing import Any

import simpy

from l4sim.runtime.clock import Action


class _Moment(simpy.Event):
    """An event that comes without having to be triggered, as `simpy.Timeout`, but with its one or two listeners."""

    def __init__(self, environment: simpy.Environment, delay_s: float, listeners: list[Action], value: Any) -> None:
        self.env = environment
        self.callbacks = listeners
        self._value = value
        self._ok = True
        environment.schedule(self, delay=delay_s)


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
        # An event rather than a process: one per moment, no generator to resume.
        environment, after = self._environment, self._after
        delay_s = time_s - environment.now
        if delay_s < 0:
            raise ValueError(f"{time_s} s is past: it is {environment.now} s")
        _Moment(environment, delay_s, [action] if after is None else [action, after], value)

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
