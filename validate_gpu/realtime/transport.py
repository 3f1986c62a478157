"""The transport between processes: messages go through sockets, KV as handles to a GPU's memory or as bytes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from l4sim.engine.request import Request
from l4sim.policies.agent import FRONT_END, Received
from l4sim.runtime.migration.messages import Arrived, Copied, MigrationMessage
from validate_gpu.live.engine import DeviceEngine
from validate_gpu.realtime.wire import Deliver, Forward, Handover, Kv, Payload


class Connection(Protocol):
    """A way to one other process; messages keep their order."""

    def send(self, message: Any) -> None:
        """Send a message."""
        ...


class SocketTransport:
    """The `Transport` of one process, which hosts one instance. It reads KV for others, and writes theirs here."""

    def __init__(
        self,
        number: int,
        engine: DeviceEngine,
        connections: Mapping[int, Connection],
        stimulate_later: Callable[[Received], None],
    ) -> None:
        """``connections``: to the front end and to each peer; ``stimulate_later`` asks the instance's own agent."""
        self.messages_sent = 0
        """By the agent."""
        self._number = number
        self._engine = engine
        self._pool = engine.pools[0]
        self._connections = connections
        self._stimulate_later = stimulate_later
        self._payloads: dict[int, Payload] = {}
        """By request, kept until the destination has copied it."""

    def tell(self, sender: int, to: int, message: Any) -> None:
        """Bring the agent's message to the agent at an address; the front end passes on what is not an instance's."""
        self.messages_sent += 1
        if to == self._number:
            self._stimulate_later(Received(to, message))
        else:
            self._connections[to if to in self._connections else FRONT_END].send(Deliver(to, sender, message))

    def is_up(self, instance: int) -> bool:
        """True: the front end ends a run in which an instance has died."""
        return True

    def send(self, sender: int, to: int, message: MigrationMessage) -> None:
        """Bring a message about a migration to an instance."""
        self._connections[to].send(message)

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Have the destination copy the KV of a request's tokens ``[start, end)``."""
        payload = self._read(request.index, start_tokens, end_tokens)
        self._connections[destination].send(Kv(request.index, start_tokens, end_tokens, payload))

    def hand_over(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        """Have it copy the last of the KV likewise, and give it the request with what it has sampled so far."""
        sampled = self._engine.sequences.sampled[request.index]
        payload = self._read(request.index, start_tokens, end_tokens)
        self._connections[destination].send(Handover(request, sampled, start_tokens, end_tokens, payload))

    def forward(self, request: Request, source: int, destination: int) -> None:
        """Give the destination a request without KV."""
        sampled = self._engine.sequences.sampled.get(request.index)
        self._connections[destination].send(Forward(request, sampled))

    def call_off(self, request: int, source: int) -> None:
        """Keep nothing for the destination any more."""
        self._payloads.pop(request, None)

    # What comes in.

    def hear(self, message: MigrationMessage) -> None:
        """Note what a message says of KV that is kept for a destination."""
        if isinstance(message, Copied | Arrived):
            self._payloads.pop(message.request, None)

    def take(self, source: int, message: Kv) -> None:
        """Copy KV to where it belongs here."""
        self._write(message.request, message.start_tokens, message.end_tokens, message.payload)
        self.send(self._number, source, Copied(message.request))

    def take_over(self, message: Handover) -> None:
        """Copy the last KV of a request to where it belongs here, and what it has sampled."""
        index = message.request.index
        self._write(index, message.start_tokens, message.end_tokens, message.payload)
        self._engine.sequences.sampled[index] = message.sampled

    def take_along(self, request: int, sampled: array[int] | None) -> None:
        """Keep what a request without KV has sampled, if it has begun."""
        if sampled is not None:
            self._engine.sequences.sampled[request] = sampled

    def _read(self, request: int, start_tokens: int, end_tokens: int) -> Payload:
        with torch.inference_mode():
            kv = self._engine.kv.read_tokens(self._pool.pages(request), start_tokens, end_tokens)
        payload = self._payloads[request] = kv if kv.is_cuda else kv.numpy()
        return payload

    def _write(self, request: int, start_tokens: int, end_tokens: int, payload: Payload) -> None:
        kv = payload if isinstance(payload, Tensor) else torch.from_numpy(payload)
        with torch.inference_mode():
            self._engine.kv.write_tokens(self._pool.grow(request, end_tokens), start_tokens, end_tokens, kv)
        if kv.is_cuda:
            # The source frees its buffer once it hears of the copy.
            torch.cuda.synchronize()
