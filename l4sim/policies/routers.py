"""Routers: which instance serves a new request, and what a router may hear besides.

Each sees the instances' views and the request's prompt. What else it hears it asks for by having the method: a router
implements whichever of the protocols below it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from l4sim.policies.agent import FleetStimulus
from l4sim.policies.views import InstanceView, RequestView

HOLD = -1
"""What `Router.route` returns for a request that is to wait at the front end.

It waits in order of arrival, those after it behind it, and is offered again whenever the router has heard something.
"""


class Router(Protocol):
    """Chooses an instance for each request as it arrives."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position in ``instances`` of the one to serve the request.

        ``instances`` are those that take requests and can serve this one, in order of their numbers. The dead, the
        draining and those whose KV cache is too small for it are not among them: a position is no instance number.
        `HOLD` keeps it back.
        """
        ...


@runtime_checkable
class Listening(Protocol):
    """A router that agents can send messages to (at `FRONT_END`)."""

    def receive(self, sender: int, message: Any, now_s: float) -> None:
        """Take a message."""
        ...


@runtime_checkable
class Following(Protocol):
    """A router that keeps something for every instance, and so wants to know which there are."""

    def follow(self, numbers: Sequence[int]) -> None:
        """From now on these instances take requests, in order of their numbers; others have gone for good.

        Called at the moment when an instance is there or is not: of one that has died, agents hear later (`PeerDied`).
        A router that has not been told reckons with the instances that it was built for.
        """
        ...


@runtime_checkable
class Hearing(Protocol):
    """A router that wants to hear what agents hear of the fleet, when and in the order in which they do."""

    def hear(self, stimulus: FleetStimulus, now_s: float) -> None:
        """Take notice of an instance that has died, joined, drains or has left."""
        ...


@runtime_checkable
class Ending(Protocol):
    """A router that keeps books of what it has sent where."""

    def ended(self, request: int, now_s: float) -> None:
        """A request, by its number, has ended in whichever way; it may never have been routed."""
        ...


@runtime_checkable
class Polling(Protocol):
    """A router that sees counts only as they were last published, as most real ones do.

    The views it is shown then all date from that moment (`InstanceView.as_of_s`). Others are shown live views, unless
    the user asks for old ones (``--view-age``); to these the front end adds what it has sent since.
    """

    view_age_s: float
    """Seconds from one publication to the next."""

    def published(self, now_s: float) -> None:
        """Views have been refreshed."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A router with timers of its own."""

    timers: Mapping[str, float]
    """Their periods in seconds, by name; each fires for the first time one period after the run's start."""

    def tick(self, name: str, now_s: float) -> None:
        """A timer has fired."""
        ...


@runtime_checkable
class CacheHearing(Protocol):
    """A router that hears of the KV blocks that instances cache (vLLM's KV events, `--kv-events-config`)."""

    def cache_changed(self, instance: int, stored: Sequence[int], removed: Sequence[int]) -> None:
        """An instance has stored blocks or taken them for something else; told at the end of an iteration.

        Blocks go by the numbers that `RequestView.prefix_ids` are taken from: one that stands for several blocks has
        the last one's. Blocks that arrived by migration are stored like computed ones.
        """
        ...


class RoundRobin:
    """Each instance in turn, whatever its load (the usual balancer before vLLM replicas; SGLang's `round_robin`)."""

    def __init__(self) -> None:
        self._next = 0

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the next position."""
        position = self._next % len(instances)
        self._next = position + 1
        return position


class Random:
    """Any instance, uniformly."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return a random position."""
        return int(self._random.integers(len(instances)))


class LeastOutstanding:
    """The instance with the fewest requests running and waiting; the first of equals."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the least loaded position."""
        loads = [view.running + view.waiting for view in instances]
        return loads.index(min(loads))


class PowerOfTwo:
    """The less loaded of two random instances (Mitzenmacher 2001), the first drawn of equals.

    Load is the number of requests outstanding. (SGLang's gateway compares polled tokens: `sglang-0.3:power-of-two`.)
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the less loaded of two positions."""
        if len(instances) == 1:
            return 0
        first = int(self._random.integers(len(instances)))
        second = (first + 1 + int(self._random.integers(len(instances) - 1))) % len(instances)
        one, other = instances[first], instances[second]
        return first if one.running + one.waiting <= other.running + other.waiting else second
