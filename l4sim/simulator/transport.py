"""The transport in simulated time: messages take a latency and may get lost, copies share links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from l4sim.engine.request import Request
from l4sim.errors import InputError
from l4sim.policies.agent import COORDINATOR, FRONT_END, Received
from l4sim.runtime.clock import Clock, Moment
from l4sim.runtime.coordinator_host import CoordinatorHost
from l4sim.runtime.executor import Executor
from l4sim.runtime.front_end import FrontEnd
from l4sim.runtime.instance_host import InstanceHost
from l4sim.runtime.migration import reasons
from l4sim.runtime.migration.messages import Copied, MigrationMessage, Returned
from l4sim.simulator.transfers import Transfer, Transfers
from l4sim.specs.options import DEFAULTS
from l4sim.specs.placement import Links


@dataclass(frozen=True, slots=True)
class Network:
    """How messages between agents travel. Faults are for testing protocols; by default there are none.

    Raises:
        InputError: a probability outside [0, 1], or a negative time.
    """

    latency_s: float = DEFAULTS.message_latency_s
    """One way."""
    jitter_s: float = DEFAULTS.message_jitter_s
    """Added to the latency, uniformly from 0 to this: messages may overtake one another."""
    loss: float = DEFAULTS.message_loss
    """Probability that a message is lost."""
    duplication: float = DEFAULTS.message_duplication
    """Probability that a message arrives twice."""
    seed: int = DEFAULTS.seed

    def __post_init__(self) -> None:
        for name in ("loss", "duplication"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"network {name} must be from 0 to 1, not {getattr(self, name)}")
        for name in ("latency_s", "jitter_s"):
            if getattr(self, name) < 0:
                raise InputError(f"network {name} must not be negative, it is {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class _Copy:
    """KV on its way; with ``last``, the request goes with it."""

    request: Request
    source: int
    destination: int
    start_tokens: int
    end_tokens: int
    last: bool


class SimulatedTransport:
    """The `Transport` of a simulation. Messages about migrations take no time: copies take all of it."""

    def __init__(self, clock: Clock, placement: Links, network: Network, executor: Executor) -> None:
        """The hosts that it delivers to are told to it by `connect`."""
        self.messages_sent = 0
        """By agents, coordinators included."""
        self._clock = clock
        self._placement = placement
        self._network = network
        self._random = np.random.default_rng(network.seed)
        self._executor = executor
        self._transfers = Transfers(clock, placement)
        self._copies: dict[tuple[int, int], Transfer] = {}
        """Under way, by request and source."""
        self._hosts: Sequence[InstanceHost] = ()
        self._coordinator: CoordinatorHost | None = None
        self._front_end: FrontEnd

    def connect(self, hosts: Sequence[InstanceHost], coordinator: CoordinatorHost | None, front_end: FrontEnd) -> None:
        """Say who there is; ``hosts`` may grow as instances join."""
        self._hosts, self._coordinator, self._front_end = hosts, coordinator, front_end

    # Between agents.

    def tell(self, sender: int, to: int, message: Any) -> None:
        """Bring an agent's message to the agent at an address."""
        network = self._network
        self.messages_sent += 1
        copies = 1
        if network.loss or network.duplication:
            copies = int(self._random.random() >= network.loss) * (1 + int(self._random.random() < network.duplication))
        for _ in range(copies):
            jitter_s = network.jitter_s * self._random.random() if network.jitter_s else 0.0
            arrival_s = self._clock.now_s + (network.latency_s + jitter_s)
            self._clock.at(arrival_s, self._on_told, (to, Received(sender, message)))

    def _on_told(self, moment: Moment) -> None:
        to, received = moment.value
        if to == FRONT_END:
            self._front_end.hear(received.sender, received.message)
        elif to == COORDINATOR:
            assert self._coordinator is not None, "a message to a coordinator that the policy does not have"
            self._coordinator.stimulate(received)
        else:
            self._hosts[to].stimulate(received)

    # Migrations.

    def is_up(self, instance: int) -> bool:
        """Whether an instance lives."""
        return self._hosts[instance].server.alive

    def send(self, sender: int, to: int, message: MigrationMessage) -> None:
        """Bring a message about a migration to an instance, at once. One that has died still keeps its books."""
        self._hosts[to].receive(sender, message)

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Copy the KV of a request's tokens ``[start, end)``."""
        self._begin(_Copy(request, source, destination, start_tokens, end_tokens, last=False))

    def hand_over(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Copy the last of its KV likewise, and give the destination the request."""
        self._begin(_Copy(request, source, destination, start_tokens, end_tokens, last=True))

    def _begin(self, copy: _Copy) -> None:
        source = self._hosts[copy.source]
        tokens = copy.end_tokens - copy.start_tokens
        # The ranks of an instance send their shares in parallel.
        share_bytes = tokens * source.kv_bytes_per_token / self._placement.lanes(copy.source, copy.destination)
        self._copies[copy.request.index, copy.source] = self._transfers.begin(
            copy.source, copy.destination, share_bytes, self._on_copied, copy
        )

    def _on_copied(self, moment: Moment) -> None:
        copy: _Copy = moment.value
        del self._copies[copy.request.index, copy.source]
        self._executor.copy(copy.request, copy.source, copy.destination, copy.start_tokens, copy.end_tokens)
        if copy.last:
            self._hosts[copy.destination].landings.land(copy.source, copy.request)
        else:
            self.send(copy.destination, copy.source, Copied(copy.request.index))

    def call_off(self, request: int, source: int) -> None:
        """Stop copying a request's KV, if that is going on."""
        transfer = self._copies.pop((request, source), None)
        if transfer is not None:
            self._transfers.cancel(transfer)

    def forward(self, request: Request, source: int, destination: int) -> None:
        """Give the destination a request without KV: it takes the link's latency."""
        link = self._placement.link(source, destination)
        self._clock.at(self._clock.now_s + link.latency_s, self._on_forwarded, (request, source, destination))

    def _on_forwarded(self, moment: Moment) -> None:
        request, source, destination = moment.value
        host = self._hosts[destination]
        if not self.is_up(destination):
            self.send(destination, source, Returned(request, reasons.DESTINATION_DIED))
        elif host.server.engine.refusal(request) is not None:
            self.send(destination, source, Returned(request, reasons.TOO_SMALL))
        else:
            host.landings.queue(source, request)
