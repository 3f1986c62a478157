"""vLLM's own data-parallel balancer, in the two shapes that it has had lately.

Follows `DPLBAsyncMPClient.get_core_engine_for_request` in `v1/engine/core_client.py`, and `v1/engine/coordinator.py`:
every API server picks an engine for its own requests by counts that the coordinator publishes every 100 ms, and adds to
these what it has sent since, times the number of API servers. By default there are as many of them as engines
(`--api-server-count`). Which one a request comes in by is up to the kernel: here it is random.

- 0.19: the least of 4 x waiting + running, from a place in the order that is the API server's own. (0.32's
  source was read; this one's rule is taken from descriptions of it.)
- 0.32 (lines 1653 to 1691): the least of max(API servers x own in flight, waiting + running) + 6 x waiting x (KV use
  above a half), from a place that moves on with every request.

Departures: publications come every 100 ms even where nothing has changed. Nothing waits for a whole step of all
engines, as it does for mixtures of experts. Engines that join find the number of API servers as it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from l4sim.policies.views import InstanceView, RequestView

PUBLISHED_S = 0.1
"""`min_stats_update_interval_ms` in `coordinator.py`."""

FloatArray = NDArray[np.float64]


class VLLM019:
    """The rule of vLLM 0.19."""

    def __init__(
        self, instances: int, seed: int, *, api_servers: int | None = None, view_age_s: float = PUBLISHED_S
    ) -> None:
        """``api_servers``: None: as many as instances."""
        self.view_age_s = view_age_s
        self._clients = api_servers or instances
        self._random = random.Random(seed)
        self._starts = [instances * client // self._clients for client in range(self._clients)]
        self._numbers = list(range(instances))
        self._positions = {number: number for number in range(instances)}
        self._is_read = False
        self._waiting = self._running = self._pressure = np.zeros(instances)
        self._own = np.zeros((self._clients, instances))
        """By API server and instance: what it has added to the published number of waiting requests."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position with the lowest score."""
        client = self._random.randrange(self._clients) if self._clients > 1 else 0
        position = self.choose(client, instances)
        self.send(client, request.request, instances[position].instance)
        return position

    def choose(self, client: int, instances: Sequence[InstanceView]) -> int:
        """Where an API server would send a request now."""
        whole = len(instances) == len(self._numbers)
        at = None if whole else np.array([self._positions[view.instance] for view in instances])
        if whole and not self._is_read:
            self._read(instances)
        scores = self._scores(client)
        if at is not None:
            scores = scores[at]
        start = self._starts[client] % len(scores)
        return int((np.argmin(np.concatenate((scores[start:], scores[:start]))) + start) % len(scores))

    def _read(self, instances: Sequence[InstanceView]) -> None:
        """Take over what has been published."""
        self._is_read = True
        self._waiting = np.array([view.waiting for view in instances], dtype=np.float64)
        self._running = np.array([view.running for view in instances], dtype=np.float64)
        kv_use = np.array([1.0 - view.kv_blocks_free / view.kv_blocks_total for view in instances])
        self._pressure = 6.0 * np.maximum(kv_use - 0.5, 0.0)

    def _scores(self, client: int) -> FloatArray:
        scores: FloatArray = 4.0 * (self._waiting + self._own[client]) + self._running
        return scores

    def send(self, client: int, request: int, instance: int) -> None:
        """Note that an API server sends a request to an instance."""
        self._own[client, self._positions[instance]] += self._clients

    def published(self, now_s: float) -> None:
        """New counts, in which everything that was sent is."""
        self._own[:] = 0
        self._is_read = False

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone or joined."""
        rows = [self._positions.get(number, -1) for number in numbers]
        joined = np.array([row < 0 for row in rows])
        self._waiting, self._running, self._pressure = (
            np.where(joined, 0.0, column[rows]) for column in (self._waiting, self._running, self._pressure)
        )
        self._own = np.where(joined, 0.0, self._own[:, rows])
        self._numbers = list(numbers)
        self._positions = {number: row for row, number in enumerate(numbers)}


class VLLM032(VLLM019):
    """The rule of vLLM 0.32."""

    def __init__(
        self, instances: int, seed: int, *, api_servers: int | None = None, view_age_s: float = PUBLISHED_S
    ) -> None:
        super().__init__(instances, seed, api_servers=api_servers, view_age_s=view_age_s)
        self._in_flight = np.zeros((self._clients, instances))
        """By API server and instance: its own requests in flight, times the number of API servers."""
        self._where: dict[int, tuple[int, int]] = {}
        """API server and instance of each request in flight."""

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position with the lowest score."""
        self.ended(request.request, 0.0)
        return super().route(request, instances)

    def _scores(self, client: int) -> FloatArray:
        waiting = self._waiting + self._own[client]
        scores: FloatArray = np.maximum(self._in_flight[client], waiting + self._running)
        if self._pressure.any():
            scores += waiting * self._pressure
        return scores

    def send(self, client: int, request: int, instance: int) -> None:
        """Note that an API server sends a request to an instance."""
        super().send(client, request, instance)
        self._starts[client] = (self._starts[client] + 1) % len(self._numbers)
        self._in_flight[client, self._positions[instance]] += self._clients
        self._where[request] = client, instance

    def ended(self, request: int, now_s: float) -> None:
        """An API server has one less in flight."""
        client, instance = self._where.pop(request, (0, -1))
        row = self._positions.get(instance)
        if row is not None:
            self._in_flight[client, row] -= self._clients

    def follow(self, numbers: Sequence[int]) -> None:
        """Instances have gone or joined."""
        rows = [self._positions.get(number, -1) for number in numbers]
        joined = np.array([row < 0 for row in rows])
        self._in_flight = np.where(joined, 0.0, self._in_flight[:, rows])
        super().follow(numbers)
