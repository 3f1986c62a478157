"""A server whose steps take the time that they take."""

from __future__ import annotations

from collections.abc import Callable

from l4sim.engine.protocol import Engine, Step
from l4sim.runtime.clock import Clock, Moment
from l4sim.runtime.executor import Executor
from l4sim.runtime.server import Server


class RealtimeServer(Server):
    """A `Server` on the wall's clock; a step runs only once all that came with its plan is delivered."""

    def __init__(
        self,
        number: int,
        engine: Engine,
        executor: Executor,
        clock: Clock,
        on_report: Callable[[], None],
        *,
        validate: bool = False,
    ) -> None:
        """``on_report``: the counts in the view have changed; ``validate`` as for `Server`."""
        super().__init__(number, engine, executor, clock, validate=validate)
        self._on_report = on_report

    def _run(self, step: Step) -> None:
        self._step = step
        self._iterations, self._slope_s = 1, 0.0
        self._start_s = self._clock.now_s
        self._began = self.engine.snapshot()
        # As an event of its own: the listeners hear of the step before, and send their messages, before this one runs.
        self._clock.at(self._start_s, self._on_start, step)

    def _on_start(self, moment: Moment) -> None:
        self._start_s = self._clock.now_s
        self._executor.execute(self.number, moment.value, self.engine.decoding_requests)
        self._first_s = self._clock.now_s - self._start_s
        self._schedule_end()

    def report(self) -> None:
        """Refresh the counts in the view, and tell of them."""
        super().report()
        self._on_report()
