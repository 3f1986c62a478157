"""What the two ends of a migration say to each other.

The source asks for room (`Reserve`), has the KV copied that there is, and again what was generated meanwhile, lets the
request leave its batch, and hands it over with the rest. The destination may refuse room at any of these steps; until
the handover the source may call it off (`Cancel`). Messages between two instances keep their order.
"""

from __future__ import annotations

from typing import NamedTuple

from l4sim.engine.request import Request


class Reserve(NamedTuple):
    """Source to destination: may a request come whose context has so many tokens?"""

    request: int
    tokens: int
    most_tokens: int
    """That its context may come to hold: its prompt and the longest answer that it asks for."""


class Reserved(NamedTuple):
    """Destination to source: it may, unless there is an objection."""

    request: int
    room_tokens: int
    """The longest context that the room set aside is good for."""
    objection: str


class Grow(NamedTuple):
    """Source to destination: its context has grown beyond the room; is there more?"""

    request: int
    tokens: int


class Grown(NamedTuple):
    """Destination to source: there is, or not."""

    request: int
    room_tokens: int
    ok: bool


class Copied(NamedTuple):
    """To the source: the KV that was being copied is there."""

    request: int


class Arrived(NamedTuple):
    """Destination to source: the request decodes there, or waits in the queue if it came without KV."""

    request: int


class Cancel(NamedTuple):
    """Source to destination: the request has ended or was preempted, or copying does not catch up."""

    request: int


class Cancelled(NamedTuple):
    """Destination to source: nothing of the request is left there, and no earlier answer is on its way."""

    request: int


class Returned(NamedTuple):
    """To the source: a request that went without KV could not be delivered, for this reason."""

    request: Request
    reason: str


ToDestination = Reserve | Grow | Cancel
ToSource = Reserved | Grown | Copied | Arrived | Cancelled | Returned
MigrationMessage = ToDestination | ToSource
