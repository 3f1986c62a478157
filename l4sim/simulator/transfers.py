"""Copies on their way between instances: those that use the same link at the same time share its bandwidth.

A transfer occupies the source's outgoing and the destination's incoming side of a link. Each side's bandwidth is split
equally among the transfers on it, and a transfer goes at the slower of its two shares; whenever one begins or ends, the
others' rates change and their ends are set anew. Source: ours, processor sharing per port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l4sim.runtime.clock import Action, Clock, Moment
from l4sim.specs.link import Link
from l4sim.specs.placement import Links

_Port = tuple[str, int, str]


@dataclass(slots=True, eq=False)
class Transfer:
    """Bytes on their way."""

    link: Link
    ports: tuple[_Port, _Port]
    left_bytes: float
    then: Action
    value: Any
    bytes_per_s: float = 0.0
    since_s: float = 0.0
    """When ``left_bytes`` were left."""
    version: int = 0
    """Counts the times its end was set, so that ends set before can be told."""


class Transfers:
    """All transfers of a cluster."""

    def __init__(self, clock: Clock, cluster: Links) -> None:
        self._clock = clock
        self._cluster = cluster
        self._on_port: dict[_Port, list[Transfer]] = {}

    def begin(self, source: int, destination: int, size_bytes: float, then: Action, value: Any) -> Transfer:
        """Send bytes from one instance to another; ``then`` is called with ``value`` when the last one has arrived."""
        link = self._cluster.link(source, destination)
        ports = (link.name, source, "out"), (link.name, destination, "in")
        transfer = Transfer(link, ports, size_bytes, then, value, since_s=self._clock.now_s)
        for port in ports:
            self._on_port.setdefault(port, []).append(transfer)
        self._share(transfer)
        return transfer

    def cancel(self, transfer: Transfer) -> None:
        """Stop a transfer, if it has not ended; nobody is told."""
        transfer.version += 1
        if transfer in self._on_port.get(transfer.ports[0], ()):
            self._leave(transfer)

    def _leave(self, transfer: Transfer) -> None:
        for port in transfer.ports:
            self._on_port[port].remove(transfer)
        self._share(transfer)

    def _share(self, changed: Transfer) -> None:
        """Set the rates and ends of all transfers on the ports of one that has begun or ended."""
        now_s = self._clock.now_s
        # A dictionary keeps the order of their beginnings: ends at one moment come in it.
        for transfer in dict.fromkeys(one for port in changed.ports for one in self._on_port[port]):
            bytes_per_s = transfer.link.bytes_per_s / max(len(self._on_port[port]) for port in transfer.ports)
            if bytes_per_s == transfer.bytes_per_s:
                continue
            transfer.left_bytes = max(0.0, transfer.left_bytes - transfer.bytes_per_s * (now_s - transfer.since_s))
            transfer.bytes_per_s, transfer.since_s = bytes_per_s, now_s
            transfer.version += 1
            end_s = now_s + transfer.left_bytes / bytes_per_s
            self._clock.at(end_s, self._on_sent, (transfer, transfer.version))

    def _on_sent(self, moment: Moment) -> None:
        transfer, version = moment.value
        if version != transfer.version:
            return
        self._leave(transfer)
        # The last byte is under way for the link's latency; the next transfer may follow it at once.
        self._clock.at(self._clock.now_s + transfer.link.latency_s, self._on_arrived, (transfer, version))

    def _on_arrived(self, moment: Moment) -> None:
        transfer, version = moment.value
        if version == transfer.version:
            transfer.then(_Arrival(transfer.value))


@dataclass(frozen=True, slots=True)
class _Arrival:
    """The `Moment` that a transfer's listener is given."""

    value: Any
