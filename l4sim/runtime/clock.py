"""The clock that a run goes by, simulated or the wall's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Moment(Protocol):
    """A moment that has come."""

    @property
    def value(self) -> Any:
        """What was given to `Clock.at`."""
        ...


Action = Callable[[Any], None]
"""What to do when a moment has come; it is given the `Moment`."""


class Clock(Protocol):
    """Says what time it is, and calls actions at moments."""

    @property
    def now_s(self) -> float:
        """Seconds since the run's start."""
        ...

    def at(self, time_s: float, action: Action, value: Any = None) -> None:
        """Call ``action`` at a moment that is not past; equal moments in the order in which they were asked for."""
        ...
