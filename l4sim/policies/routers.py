"""Routers: which instance serves a new request. Each sees the instances' views and the request's prompt, no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from l4sim.policies.agent import FleetChange
from l4sim.policies.views import InstanceView, RequestView


class Router(Protocol):
    """Chooses an instance for each request as it arrives."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position in ``instances`` of the one to serve the request.

        ``instances`` are those that take requests, in order of their numbers: the dead and the draining are not among
        them, so that a position is no instance number. One that joins has a higher number than any before it.
        """
        ...


@runtime_checkable
class Listening(Protocol):
    """A router that agents can send messages to (at `FRONT_END`)."""

    def receive(self, sender: int, message: Any, now_s: float) -> None:
        """Take a message."""
        ...


@runtime_checkable
class Hearing(Protocol):
    """A router that wants to hear of instances that die, join, drain and leave, in the order in which agents do.

    Most need not: the views that they route by tell who is there (`same_fleet`).
    """

    def hear(self, change: FleetChange, now_s: float) -> None:
        """Take notice of a change."""
        ...


def same_fleet(known: Sequence[int], instances: Sequence[InstanceView]) -> bool:
    """Whether ``instances`` have exactly the numbers ``known``, both in order, ``known`` being those of earlier views.

    Numbers are not used again, and who joins comes last: the count and the last number tell.
    """
    return len(known) == len(instances) and known[-1] == instances[-1].instance


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

    After `power_of_two.rs` of SGLang's gateway. Load is the number of requests outstanding, which is what the gateway
    counts itself; where its workers report the tokens they hold, it compares these, polled every few seconds.
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


class VLLM:
    """vLLM's internal data-parallel balancer: the least of 4 x waiting + running, the first of equals.

    After `DPLBAsyncMPClient.get_core_engine_for_request` in `v1/engine/core_client.py` of vLLM 0.19, with one client.
    Its counts are up to 100 ms old, its own requests since then added as waiting; here they are fresh. (Later versions
    score max(waiting + running, own in flight), add to it under KV pressure only, and rotate among equals.)
    """

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position with the lowest score."""
        scores = [4 * view.waiting + view.running for view in instances]
        return scores.index(min(scores))
