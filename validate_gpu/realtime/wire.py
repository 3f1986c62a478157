"""What processes of a realtime run tell one another, and the sockets that it goes through."""

from __future__ import annotations

import threading
from array import array
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch.multiprocessing  # noqa: F401  lets a tensor on a GPU be sent as a handle to its memory
from torch import Tensor

from l4sim.engine.request import Request
from l4sim.records import MigrationRow
from validate_gpu.decisions import Call
from validate_gpu.live_run import Iteration


class Ready(NamedTuple):
    """From an instance: its engine is warm."""


class Start(NamedTuple):
    """To everybody: the moment on the machine's monotonic clock that the run begins at."""

    epoch_s: float


class Submit(NamedTuple):
    """From the front end: a request to be queued."""

    request: Request


Payload = Tensor | np.ndarray[Any, np.dtype[Any]]
"""KV of some tokens, ``[2, layers, n, kv_heads, head_dim]``: on a GPU a handle, which the destination copies from peer
memory; on a CPU the bytes themselves."""


class Kv(NamedTuple):
    """From a migration's source to its destination: the KV of a request's tokens ``[start, end)``."""

    request: int
    start_tokens: int
    end_tokens: int
    payload: Payload


class Handover(NamedTuple):
    """From a migration's source to its destination: the request, with the last of its KV and what it has sampled."""

    request: Request
    sampled: array[int]
    start_tokens: int
    end_tokens: int
    payload: Payload


class Forward(NamedTuple):
    """From a migration's source to its destination: a request without KV."""

    request: Request
    sampled: array[int] | None
    """None if it has not begun."""


class Ended(NamedTuple):
    """To the front end: a request has been answered."""

    request: Request


class Report(NamedTuple):
    """To the front end: an instance's counts, as `l4sim.policies.views.InstanceView` names them."""

    instance: int
    as_of_s: float
    running: int
    waiting: int
    waiting_tokens: int
    pending_prompt_tokens: int
    context_tokens: int
    kv_blocks_free: int
    kv_blocks_total: int
    kv_block_tokens: int


class Deliver(NamedTuple):
    """A policy's message, to the agent at an address."""

    to: int
    sender: int
    message: Any


class Stop(NamedTuple):
    """To an instance: the run is over, its records are wanted."""

    at_once: bool
    """Whatever is under way; else once its migrations have come to their ends."""


class Goodbye(NamedTuple):
    """To an instance: nothing more is wanted of it."""


class Records(NamedTuple):
    """An instance's last message: what it has recorded."""

    segments: bytes
    """The numbers of the instance's table of segments."""
    migrations: list[MigrationRow]
    kv_blocks_held: int
    messages_sent: int
    executed: list[Iteration]
    calls: list[Call]
    """Of the instance's agent."""


class Failed(NamedTuple):
    """From an instance: it cannot go on."""

    reason: str


class Lost(NamedTuple):
    """A connection has ended."""


class Link:
    """One socket: messages sent on it, and those received put into the process's inbox.

    A thread reads, so that two processes that send much to one another at once cannot block each other.
    """

    def __init__(self, connection: Connection[Any, Any], peer: int, inbox: SimpleQueue[tuple[int, Any]]) -> None:
        """Messages go into ``inbox`` with ``peer``, the number of who sent them."""
        self._connection = connection
        self._peer = peer
        self._inbox = inbox
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, message: Any) -> None:
        """Send a message; one to a process that has ended is lost, of which `Lost` tells."""
        try:
            self._connection.send(message)
        except OSError:
            self._inbox.put((self._peer, Lost()))

    def close(self, timeout_s: float) -> None:
        """Close this end, once the other one has been closed; left to the process's end if that takes too long."""
        self._reader.join(timeout_s)
        if not self._reader.is_alive():
            self._connection.close()

    def _read(self) -> None:
        try:
            while True:
                self._inbox.put((self._peer, self._connection.recv()))
        except (EOFError, OSError):
            self._inbox.put((self._peer, Lost()))
