"""Routers: which instance serves a new request. Each sees the instances' views and the request's prompt, no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from l4sim.policies.views import InstanceView, RequestView


class Router(Protocol):
    """Chooses an instance for each request as it arrives."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position in ``instances`` of the one to serve the request."""
        ...


@runtime_checkable
class Listening(Protocol):
    """A router that agents can send messages to (at `FRONT_END`)."""

    def receive(self, sender: int, message: Any, now_s: float) -> None:
        """Take a message."""
        ...


class RoundRobin:
    """Each instance in turn."""

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
    """The less loaded of two random instances (Mitzenmacher 2001; SGLang's gateway calls it `power_of_two`)."""

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

    After `DPLBAsyncMPClient.get_core_engine_for_request` in vLLM's `v1/engine/core_client.py`, whose counts are up to
    100 ms old where these are fresh.
    """

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position with the lowest score."""
        scores = [4 * view.waiting + view.running for view in instances]
        return scores.index(min(scores))
