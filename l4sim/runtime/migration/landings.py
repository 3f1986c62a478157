"""The destination's end: room is set aside for requests that migrate to one instance, and they decode on there."""

from __future__ import annotations

from collections.abc import Callable

from l4sim.engine.request import Request
from l4sim.runtime.clock import Clock
from l4sim.runtime.migration import reasons
from l4sim.runtime.migration.messages import (
    Arrived,
    Cancel,
    Cancelled,
    Grow,
    Grown,
    Reserve,
    Reserved,
    ToDestination,
)
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.runtime.server import Server
from l4sim.runtime.transport import Transport


class Landings:
    """All migrations to one instance."""

    def __init__(
        self,
        server: Server,
        clock: Clock,
        transport: Transport,
        rules: MigrationRules,
        *,
        discard: Callable[[int], None],
        on_joined: Callable[[int], None],
    ) -> None:
        """``discard`` forgets what was copied of a request, by its number; ``on_joined``: a request has come here."""
        self._server = server
        self._clock = clock
        self._transport = transport
        self._rules = rules
        self._discard = discard
        self._on_joined = on_joined
        self.draining = False
        """Whether nothing is to come here any more; what is on its way still lands."""
        self._reserved: dict[int, int] = {}
        """Blocks set aside, by request."""

    @property
    def expected(self) -> int:
        """Requests on their way here with KV."""
        return len(self._reserved)

    def receive(self, source: int, message: ToDestination) -> None:
        """Take a message from the instance ``source``."""
        match message:
            case Reserve():
                self._on_reserve(source, message)
            case Grow():
                self._on_grow(source, message)
            case Cancel(request):
                self._clear(request)
                self._transport.send(self._server.number, source, Cancelled(request))

    def _on_reserve(self, source: int, message: Reserve) -> None:
        server = self._server
        # One block more than now, so that a short copy need not ask again.
        blocks = server.engine.blocks_for(message.tokens) + 1
        objection = ""
        if self.draining:
            objection = reasons.DRAINING
        elif server.engine.blocks_for(message.most_tokens - 1) > server.engine.kv_blocks_total:
            objection = reasons.TOO_SMALL
        elif server.transfers >= self._rules.max_concurrent:
            objection = reasons.DESTINATION_BUSY
        elif not server.engine.reserve(blocks, server.iteration_under_way):
            objection = reasons.NO_ROOM
        else:
            self._reserved[message.request] = blocks
            server.transfers += 1
        answer = Reserved(message.request, server.engine.tokens_for(blocks), objection)
        self._transport.send(server.number, source, answer)
        if not objection:
            # Its next iteration is slower.
            server.wake(untimed=True)

    def _on_grow(self, source: int, message: Grow) -> None:
        server, request = self._server, message.request
        more = server.engine.blocks_for(message.tokens) - self._reserved[request]
        ok = server.engine.reserve_more(more, server.iteration_under_way)
        if ok:
            self._reserved[request] += more
            server.wake()
        room_tokens = server.engine.tokens_for(self._reserved[request])
        self._transport.send(server.number, source, Grown(request, room_tokens, ok))

    def land(self, source: int, request: Request) -> None:
        """A request is here with all its KV: it decodes on."""
        server = self._server
        request.migrations += 1
        request.last_instance = server.number
        server.engine.attach(request, self._reserved.pop(request.index), self._clock.now_s)
        server.transfers -= 1
        self._transport.send(server.number, source, Arrived(request.index))
        server.wake(untimed=True)
        self._on_joined(request.index)

    def queue(self, source: int, request: Request) -> None:
        """A request is here without KV: it waits like a new one."""
        server = self._server
        request.migrations += 1
        request.last_instance = server.number
        if not request.has_begun and request.first_instance == source:
            request.first_instance = server.number
        server.submit(request)
        self._transport.send(server.number, source, Arrived(request.index))
        self._on_joined(request.index)

    def _clear(self, request: int) -> None:
        """Give back what was set aside for a request, if anything was."""
        blocks = self._reserved.pop(request, None)
        if blocks is not None:
            self._discard(request)
            self._server.engine.cancel_reservation(blocks)
            self._server.transfers -= 1
            self._server.wake(untimed=True)
