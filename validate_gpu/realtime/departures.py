"""Requests that migrate away from a process: the simulator's stages and rules, driven by the destination's answers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from l4sim.engine.blocks import blocks_for
from l4sim.engine.request import Request
from l4sim.policies.agent import Migrate
from l4sim.simulator.clock import Timekeeper
from l4sim.simulator.migration import KINDS, REASONS, STATUSES, MigrationRules
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


@dataclass(slots=True, eq=False)
class _Outgoing:
    wish: Migrate
    asked_s: float
    context_tokens: int
    start_s: float = math.nan
    pause_start_s: float = math.nan
    copied_tokens: int = 0
    target_tokens: int = 0
    stages: int = 0
    departed: Request | None = None
    payload: Payload | None = None
    """Kept until the destination has copied it."""


class Departures:
    """All migrations away from one instance."""

    def __init__(
        self,
        server: Server,
        engine: DeviceEngine,
        clock: Timekeeper,
        rules: MigrationRules,
        kv_bytes_per_token: int,
        send: Callable[[int, Any], None],
        on_end: Callable[[int, int, bool, str], None],
    ) -> None:
        """``send``: to an instance, a message; ``on_end``: request, destination, whether done, reason."""
        self.rows = array("d")
        """Rows of the results' MIGRATIONS table."""
        self._server = server
        self._engine = engine
        self._pool = engine.pools[0]
        self._clock = clock
        self._rules = rules
        self._kv_bytes_per_token = kv_bytes_per_token
        self._send = send
        self._on_end = on_end
        self._outgoing: dict[int, _Outgoing] = {}
        self._cancelling: set[int] = set()
        """Requests whose last migration was called off, of which the destination may still be speaking."""

    @property
    def idle(self) -> bool:
        """Whether no answer is waited for."""
        return not (self._outgoing or self._cancelling)

    def handle(self, message: Any) -> bool:
        """Take a destination's answer; False if the message is none."""
        match message:
            case Reserved():
                self._on_reserved(message)
            case Copied():
                self._on_copied(message)
            case Arrived():
                self._on_arrived(message)
            case Cancelled(request):
                self._cancelling.discard(request)
            case _:
                return False
        return True

    def ask(self, wish: Migrate) -> None:
        """Start a migration, or refuse it; a request that has not begun is sent on as it is."""
        found = self._server.view.find(wish.request)
        outgoing = _Outgoing(wish, self._clock.now_s, 0 if found is None else found.context_tokens)
        if found is None and wish.to != self._server.number:
            request = self._server.instance.withdraw(wish.request)
            if request is not None:
                self._forward(outgoing, request)
                return
        objection = self._objection(wish)
        if objection:
            self._tell(outgoing, "refused", objection)
            return
        self._outgoing[wish.request] = outgoing
        self._server.transfers += 1
        # One block more than now, so that a short copy need not ask again.
        blocks = blocks_for(outgoing.context_tokens, self._pool.block_tokens) + 1
        self._send(wish.to, Reserve(wish.request, blocks))

    def _objection(self, wish: Migrate) -> str:
        if wish.to == self._server.number:
            return "the destination is the source"
        if self._server.view.find(wish.request) is None:
            return "the request does not decode at the source"
        if wish.request in self._outgoing or wish.request in self._cancelling:
            return "the request is migrating already"
        if self._server.transfers >= self._rules.max_concurrent:
            return "the source takes part in as many migrations as it may"
        return ""

    def _forward(self, outgoing: _Outgoing, request: Request) -> None:
        outgoing.start_s = outgoing.pause_start_s = self._clock.now_s
        request.migrations += 1
        self._server.wake()
        self._server.report()
        self._send(outgoing.wish.to, Forward(request))
        self._tell(outgoing, "done", "")

    def _on_reserved(self, message: Reserved) -> None:
        outgoing = self._outgoing.get(message.request)
        if outgoing is None:
            return
        if message.objection:
            self._end(outgoing, "refused", message.objection)
            return
        outgoing.start_s = self._clock.now_s
        self._copy(outgoing)

    def _copy(self, outgoing: _Outgoing) -> None:
        """Begin the next stage: send what there is now and has not been sent."""
        index = outgoing.wish.request
        context_tokens = self._context_tokens(index)
        outgoing.stages += 1
        outgoing.target_tokens = context_tokens
        start, end = outgoing.copied_tokens, context_tokens
        outgoing.payload = self._read(index, start, end)
        self._send(outgoing.wish.to, Kv(index, start, end, context_tokens + 1, outgoing.payload))

    def _on_copied(self, message: Copied) -> None:
        outgoing = self._outgoing.get(message.request)
        if outgoing is None:
            return
        outgoing.payload = None
        outgoing.copied_tokens = outgoing.target_tokens
        left_tokens = self._context_tokens(message.request) - outgoing.copied_tokens
        if not message.ok:
            self._cancel(outgoing, "the destination has no room")
        elif left_tokens <= self._rules.last_stage_blocks * self._pool.block_tokens:
            request = self._server.instance.decoding.find(message.request)
            assert request is not None, "a request that migrates decodes at its source until it departs"
            self._server.instance.detach(request, self._clock.now_s)
            self._server.wake()
        elif outgoing.stages >= self._rules.max_stages:
            self._cancel(outgoing, "copying did not catch up with decoding")
        else:
            self._copy(outgoing)

    def on_departed(self, request: Request) -> None:
        """The request has left the batch: send the rest, and the request with it."""
        outgoing = self._outgoing.get(request.index)
        if outgoing is None:
            # Called off after the engine had been asked to let it go.
            self._restore(request)
            return
        outgoing.departed = request
        outgoing.pause_start_s = self._clock.now_s
        outgoing.stages += 1
        outgoing.context_tokens = outgoing.target_tokens = request.total_tokens - 1
        start, end = outgoing.copied_tokens, outgoing.target_tokens
        outgoing.payload = self._read(request.index, start, end)
        sampled = self._engine.sequences.sampled[request.index]
        self._send(outgoing.wish.to, Handoff(request, sampled, start, end, outgoing.payload))

    def _on_arrived(self, message: Arrived) -> None:
        outgoing = self._outgoing[message.request]
        request = outgoing.departed
        assert request is not None, "only a request that has departed arrives"
        if message.ok:
            outgoing.copied_tokens = outgoing.target_tokens
            self._server.instance.drop(request)
            self._end(outgoing, "done", "")
            self._server.wake()
        else:
            self._restore(request)
            self._end(outgoing, "aborted", "the destination has no room")

    def _restore(self, request: Request) -> None:
        self._server.instance.restore(request, self._clock.now_s)
        self._server.wake()

    def on_ended(self, request: int) -> None:
        """A request has ended; if it was migrating, that is over."""
        self._call_off(request, "the request ended first")

    def on_preempted(self, request: int) -> None:
        """A request was preempted; if it was migrating, that is over."""
        self._call_off(request, "the request was preempted first")

    def _call_off(self, request: int, reason: str) -> None:
        outgoing = self._outgoing.get(request)
        if outgoing is not None:
            self._cancel(outgoing, reason)

    def _cancel(self, outgoing: _Outgoing, reason: str) -> None:
        self._cancelling.add(outgoing.wish.request)
        self._send(outgoing.wish.to, Cancel(outgoing.wish.request))
        self._end(outgoing, "aborted", reason)

    def _context_tokens(self, request: int) -> int:
        found = self._server.view.find(request)
        assert found is not None, "a request that migrates decodes at its source until it departs"
        return found.context_tokens

    def _read(self, request: int, start: int, end: int) -> Payload:
        with torch.inference_mode():
            kv = self._engine.kv.read_tokens(self._pool.pages(request), start, end)
        return kv if kv.is_cuda else kv.numpy()

    def _end(self, outgoing: _Outgoing, status: str, reason: str) -> None:
        del self._outgoing[outgoing.wish.request]
        self._server.transfers -= 1
        self._tell(outgoing, status, reason)

    def _tell(self, outgoing: _Outgoing, status: str, reason: str) -> None:
        now_s, wish = self._clock.now_s, outgoing.wish
        self.rows.extend(
            (
                wish.request,
                KINDS.index(wish.kind),
                self._server.number,
                wish.to,
                outgoing.asked_s,
                outgoing.start_s,
                outgoing.pause_start_s,
                now_s,
                now_s - outgoing.pause_start_s,
                outgoing.context_tokens,
                outgoing.copied_tokens * self._kv_bytes_per_token,
                outgoing.stages,
                STATUSES.index(status),
                REASONS.index(reason),
            )
        )
        self._on_end(wish.request, wish.to, status == "done", reason)
