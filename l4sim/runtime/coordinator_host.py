"""A policy's coordinator, which has no instance."""

from __future__ import annotations

from l4sim.policies.agent import COORDINATOR, Coordinator, Send, SetTimer, Stimulus, TimerFired
from l4sim.runtime.clock import Clock, Moment
from l4sim.runtime.transport import Messenger


class CoordinatorHost:
    """Asks the coordinator, and carries out what it returns."""

    def __init__(self, coordinator: Coordinator, clock: Clock, messenger: Messenger) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._messenger = messenger

    def stimulate(self, stimulus: Stimulus) -> None:
        """Ask the coordinator now."""
        for instruction in self._coordinator.handle(stimulus, self._clock.now_s):
            match instruction:
                case Send(to, message):
                    self._messenger.tell(COORDINATOR, to, message)
                case SetTimer(delay_s, name):
                    self._clock.at(self._clock.now_s + delay_s, self._on_stimulus, TimerFired(name))
                case _:
                    raise AssertionError(f"a coordinator has no instance to carry out {instruction}")

    def _on_stimulus(self, moment: Moment) -> None:
        self.stimulate(moment.value)
