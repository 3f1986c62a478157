"""Routers: which instance serves a new request. Each sees the instances' views and the request's prompt, no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from l4sim.policies.agent import FleetStimulus
from l4sim.policies.views import InstanceView, RequestView


class Router(Protocol):
    """Chooses an instance for each request as it arrives."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position in ``instances`` of the one to serve the request.

        ``instances`` are those that take requests and can serve this one, in order of their numbers. The dead, the
        draining and those whose KV cache is too small for it are not among them: a position is no instance number.
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
