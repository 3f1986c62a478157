"""The seam of decentralised policies: one agent per instance takes a stimulus and returns instructions.

An agent sees its own instance, and its peers only through messages, which take time and can be lost. Instructions are
advice: the executor may refuse one, and tells the agent so (`MigrationEnded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from l4sim.policies.views import DecodingRequest, InstanceView, QueuedRequest

# Stimuli.


class Started(NamedTuple):
    """The instance has come up; the agent's first stimulus."""


class Crossed(NamedTuple):
    """A decoding request's context has reached the watched boundary."""

    request: DecodingRequest


class Received(NamedTuple):
    """A message from another agent."""

    sender: int
    message: Any


class TimerFired(NamedTuple):
    """A timer that the agent has set."""

    name: Any


class MigrationEnded(NamedTuple):
    """A migration that the agent asked for is over."""

    request: int
    destination: int
    done: bool
    reason: str
    """Empty if done, else why it was refused or aborted."""


class Joined(NamedTuple):
    """A request has migrated here."""

    request: int


class PeerDied(NamedTuple):
    """An instance has died; everybody hears of it once it is noticed."""

    instance: int


class InstanceUp(NamedTuple):
    """An instance has joined the fleet and takes requests; everybody hears of it, its own agent after `Started`."""

    instance: int
    """Higher than any number before it: numbers are not used again."""


class Draining(NamedTuple):
    """An instance takes no new requests any more and leaves once it is empty; everybody hears of it.

    Its own agent may hand over what it has; what nobody moves is served to its end there.
    """

    instance: int


class Left(NamedTuple):
    """A draining instance was empty and is gone; nothing was lost. Everybody that is left hears of it."""

    instance: int


class Finished(NamedTuple):
    """A request has finished here; sent only to agents that have asked for it (`ReportFinished`)."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, found in a prefix cache."""
    output_tokens: int


FleetStimulus = PeerDied | InstanceUp | Draining | Left
"""What everybody hears, in the same order: all agents alive, the coordinator, and a router that listens."""

Stimulus = Started | Crossed | Received | TimerFired | MigrationEnded | Joined | FleetStimulus | Finished

# Instructions.


COORDINATOR = -1
"""The address of a central scheduler, for policies that have one."""
FRONT_END = -2
"""The address of the router."""


class Send(NamedTuple):
    """Send a message to the agent of another instance, to `COORDINATOR` or to `FRONT_END`."""

    to: int
    message: Any


class Migrate(NamedTuple):
    """Move a request of this instance to another one: live if it decodes, at no cost if it has not begun."""

    request: int
    to: int
    kind: str
    """`handover` (it has outgrown its stage) or `rebalance` (for load)."""


class SetTimer(NamedTuple):
    """Ask for a `TimerFired` with this name."""

    delay_s: float
    name: Any


class Watch(NamedTuple):
    """From now on report requests whose context reaches this many tokens; None stops it."""

    boundary_tokens: int | None


class ReportFinished(NamedTuple):
    """From now on send a `Finished` for every request that finishes here."""


Instruction = Send | Migrate | SetTimer | Watch | ReportFinished


class OwnView(InstanceView, Protocol):
    """An agent's own instance: the view, and the requests in its batch."""

    def decoding(self) -> Sequence[DecodingRequest]:
        """The requests that decode now."""
        ...

    def queued(self) -> Sequence[QueuedRequest]:
        """The requests that wait and have not begun, head first."""
        ...

    def find(self, request: int) -> DecodingRequest | None:
        """A decoding request by its number; None if it does not decode here (any more)."""
        ...


class Coordinator(Protocol):
    """A central scheduler: it has no instance, sees nothing but messages, and may send them and set timers."""

    def handle(self, stimulus: Stimulus, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        ...


class Agent(Protocol):
    """A policy's part on one instance."""

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        ...
