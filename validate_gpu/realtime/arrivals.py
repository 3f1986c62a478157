"""Requests that migrate to a process: room is set aside, KV is put in its place, and they decode on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from l4sim.engine.blocks import blocks_for
from l4sim.engine.request import Request
from l4sim.simulator.clock import Timekeeper
from l4sim.simulator.migration import MigrationRules
from l4sim.simulator.server import Server
from validate_gpu.live.engine import DeviceEngine
from validate_gpu.realtime.protocol import (
    Arrived,
    Cancel,
    Cancelled,
    Copied,
    Forward,
    Handoff,
    Kv,
    Payload,
    Reserve,
    Reserved,
)


class Arrivals:
    """All migrations to one instance."""

    def __init__(
        self,
        server: Server,
        engine: DeviceEngine,
        clock: Timekeeper,
        rules: MigrationRules,
        send: Callable[[int, Any], None],
        on_joined: Callable[[int], None],
    ) -> None:
        """``send``: to an instance, a message; ``on_joined``: a request, by its number, has come here."""
        self._server = server
        self._engine = engine
        self._pool = engine.pools[0]
        self._clock = clock
        self._rules = rules
        self._send = send
        self._on_joined = on_joined
        self._reserved: dict[int, int] = {}
        """Blocks set aside, by request."""

    def handle(self, source: int, message: Any) -> bool:
        """Take a message from the instance ``source``; False if it is not about a migration to here."""
        match message:
            case Reserve():
                self._on_reserve(source, message)
            case Kv():
                self._on_kv(source, message)
            case Handoff():
                self._on_handoff(source, message)
            case Cancel(request):
                self._clear(request)
                self._send(source, Cancelled(request))
            case Forward(request):
                self._on_forward(request)
            case _:
                return False
        return True

    def _on_reserve(self, source: int, message: Reserve) -> None:
        objection = ""
        if self._server.transfers >= self._rules.max_concurrent:
            objection = "the destination takes part in as many migrations as it may"
        elif not self._server.instance.reserve(message.blocks):
            objection = "the destination has no room"
        else:
            self._reserved[message.request] = message.blocks
            self._server.transfers += 1
        self._send(source, Reserved(message.request, objection))

    def _on_kv(self, source: int, message: Kv) -> None:
        ok = self._grow(message.request, message.grow_to)
        if ok:
            self._write(message.request, message.start, message.end, message.payload)
        self._send(source, Copied(message.request, ok))

    def _on_handoff(self, source: int, message: Handoff) -> None:
        request = message.request
        ok = self._grow(request.index, message.end)
        if ok:
            self._write(request.index, message.start, message.end, message.payload)
            self._engine.sequences.sampled[request.index] = message.sampled
            request.migrations += 1
            request.last_instance = self._server.number
            self._server.instance.attach(request, self._reserved.pop(request.index), self._clock.now_s)
            self._server.transfers -= 1
            self._server.wake()
            self._on_joined(request.index)
        else:
            self._clear(request.index)
        self._send(source, Arrived(request.index, ok))

    def _on_forward(self, request: Request) -> None:
        request.last_instance = self._server.number
        if not request.has_begun:
            request.first_instance = self._server.number
        self._server.submit(request)
        self._on_joined(request.index)

    def _clear(self, request: int) -> None:
        """Give back what was set aside for a request, if anything was."""
        blocks = self._reserved.pop(request, None)
        if blocks is not None:
            self._pool.discard(request)
            self._server.instance.cancel_reservation(blocks)
            self._server.transfers -= 1
            self._server.wake(untimed=True)

    def _grow(self, request: int, tokens: int) -> bool:
        more = blocks_for(tokens, self._pool.block_tokens) - self._reserved[request]
        if more > 0:
            if not self._server.instance.reserve_more(more):
                return False
            self._reserved[request] += more
        return True

    def _write(self, request: int, start: int, end: int, payload: Payload) -> None:
        kv = payload if isinstance(payload, Tensor) else torch.from_numpy(payload)
        with torch.inference_mode():
            self._engine.kv.write_tokens(self._pool.grow(request, end), start, end, kv)
        if kv.is_cuda:
            # The source frees its buffer once it hears of the copy.
            torch.cuda.synchronize()
