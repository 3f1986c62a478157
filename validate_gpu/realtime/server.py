"""A server whose steps take the time that they take."""

from __future__ import annotations

from collections.abc import Callable

from l4sim.engine.instance import Instance, Step
from l4sim.simulator.clock import Moment, Timekeeper
from l4sim.simulator.executor import Executor
from l4sim.simulator.server import Listener, Server


class RealtimeServer(Server):
    """The simulator's server on the wall's clock; a step runs only once all that came with its plan is delivered."""

    def __init__(
        self,
        number: int,
        instance: Instance,
        executor: Executor,
        clock: Timekeeper,
        listener: Listener,
        on_report: Callable[[], None],
    ) -> None:
        """``on_report``: the counts in the view have changed."""
        super().__init__(number, instance, executor, clock, listener)
        self._on_report = on_report

    def _run(self, step: Step) -> None:
        pool = self.instance.pool
        self._step = step
        self._iterations, self._slope_s = 1, 0.0
        self._start_s = self._clock.now_s
        self._noted = (self.instance.decoding.context_std, len(self.instance.waiting), pool.total - pool.free)
        # As an event of its own: the listeners hear of the step before, and send their messages, before this one runs.
        self._clock.at(self._start_s, self._on_start, step)

    def _on_start(self, moment: Moment) -> None:
        self._start_s = self._clock.now_s
        self._executor.execute(self.number, moment.value, self.instance.decoding.requests)
        self._first_s = self._clock.now_s - self._start_s
        self._schedule_end()

    def report(self) -> None:
        """Refresh the counts in the view, and tell of them."""
        super().report()
        self._on_report()
