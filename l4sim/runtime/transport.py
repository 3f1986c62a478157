"""How instances, the coordinator and the front end of a run reach one another."""

from __future__ import annotations

from typing import Any, Protocol

from l4sim.engine.request import Request
from l4sim.runtime.migration.messages import MigrationMessage


class Messenger(Protocol):
    """Carries what agents say, which may be late, lost, or heard twice."""

    def tell(self, sender: int, to: int, message: Any) -> None:
        """Bring an agent's message to the agent at an address: an instance, `COORDINATOR` or `FRONT_END`."""
        ...


class Transport(Messenger, Protocol):
    """Carries messages, KV and requests between instances, which go by their numbers.

    What two instances say about a migration keeps its order and is not lost while both live.
    """

    def is_up(self, instance: int) -> bool:
        """Whether an instance can be reached."""
        ...

    def send(self, sender: int, to: int, message: MigrationMessage) -> None:
        """Bring a message about a migration to an instance."""
        ...

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Copy the KV of a request's tokens ``[start, end)``; the source then hears `Copied`."""
        ...

    def hand_over(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Copy the last of its KV likewise, and give the destination the request: `Landings.land` is called there."""
        ...

    def forward(self, request: Request, source: int, destination: int) -> None:
        """Give the destination a request without KV: `Landings.queue` is called there.

        If it has died by then, or could never serve it, the source hears `Returned`.
        """
        ...

    def call_off(self, request: int, source: int) -> None:
        """Stop copying a request's KV, if that is going on."""
        ...
