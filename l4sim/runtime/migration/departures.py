"""The source's end: requests that migrate away from one instance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from l4sim.engine.request import Request
from l4sim.policies.agent import Migrate
from l4sim.records import MigrationRow, Table
from l4sim.runtime.clock import Clock
from l4sim.runtime.migration import reasons
from l4sim.runtime.migration.messages import (
    Arrived,
    Cancel,
    Cancelled,
    Copied,
    Grow,
    Grown,
    Reserve,
    Reserved,
    Returned,
    ToSource,
)
from l4sim.runtime.migration.methods import METHODS, MigrationRules, Next
from l4sim.runtime.server import Server
from l4sim.runtime.transport import Transport


@dataclass(slots=True, eq=False)
class _Departure:
    wish: Migrate
    asked_s: float
    context_tokens: int
    """When it was asked for, then when it left the source."""
    start_s: float = math.nan
    pause_start_s: float = math.nan
    room_tokens: int = 0
    """The longest context that the destination has set room aside for."""
    copied_tokens: int = 0
    target_tokens: int = 0
    """Tokens that will have been copied when the current stage ends."""
    stages: int = 0
    departed: Request | None = None
    """The request, once it has left the source's batch."""


EndListener = Callable[[int, int, bool, str], None]
"""Takes a request, its destination, whether it has gone there, and if not, why."""


class Departures:
    """All migrations away from one instance."""

    def __init__(
        self,
        server: Server,
        clock: Clock,
        transport: Transport,
        rules: MigrationRules,
        table: Table[MigrationRow],
        *,
        kv_bytes_per_token: int,
        on_end: EndListener,
        on_orphan: Callable[[Request], None],
    ) -> None:
        """``kv_bytes_per_token``: over all ranks of the instance.

        ``table`` gets a row for each migration that has ended. ``on_orphan`` takes requests that are nowhere any more,
        as their destination could not take them when they came.
        """
        self._server = server
        self._clock = clock
        self._transport = transport
        self._rules = rules
        self._method = METHODS[rules.method]
        self._table = table
        self._kv_bytes_per_token = kv_bytes_per_token
        self._on_end = on_end
        self._on_orphan = on_orphan
        self._moving: dict[int, _Departure] = {}
        self._forwarded: dict[int, _Departure] = {}
        """Requests on their way that went without KV."""
        self._cancelling: set[int] = set()
        """Requests whose last migration was called off, of which the destination may still be speaking."""

    @property
    def moving(self) -> int:
        """Migrations under way that count against `MigrationRules.max_concurrent`."""
        return len(self._moving)

    @property
    def forwarded(self) -> int:
        """Requests on their way that went without KV."""
        return len(self._forwarded)

    @property
    def idle(self) -> bool:
        """Whether no answer is waited for."""
        return not (self._moving or self._forwarded or self._cancelling)

    def ask(self, wish: Migrate) -> None:
        """Start a migration, or refuse it; the end listener hears of either outcome.

        A request that waits and has not begun has no KV: it is sent on as it is.
        """
        found = self._server.view.find(wish.request)
        departure = _Departure(wish, self._clock.now_s, 0 if found is None else found.context_tokens)
        if found is None and wish.to != self._server.number and self._transport.is_up(wish.to):
            request = self._server.engine.withdraw(wish.request)
            if request is not None:
                # What stood behind it in the queue may have room now.
                self._server.wake(untimed=True)
                self._server.report()
                departure.start_s = self._clock.now_s
                self._forward(departure, request)
                return
        objection = self._objection(wish)
        if objection:
            self._tell(departure, "refused", objection)
            return
        self._moving[wish.request] = departure
        self._server.transfers += 1
        if self._method.carries_kv:
            request = self._server.engine.find_decoding(wish.request)
            assert request is not None, "`_objection` has found it"
            most_tokens = request.prompt_tokens + request.output_tokens
            reserve = Reserve(wish.request, departure.context_tokens, most_tokens)
            self._transport.send(self._server.number, wish.to, reserve)
        else:
            self._begin(departure)

    def _objection(self, wish: Migrate) -> str:
        if wish.to == self._server.number:
            return reasons.SAME
        if not self._transport.is_up(wish.to):
            return reasons.DESTINATION_DIED
        if self._server.engine.find_decoding(wish.request) is None:
            return reasons.NOT_DECODING
        if wish.request in self._moving or wish.request in self._cancelling:
            return reasons.MIGRATING
        if self._server.transfers >= self._rules.max_concurrent:
            return reasons.SOURCE_BUSY
        return ""

    # What the other end says.

    def receive(self, message: ToSource) -> None:
        """Take a message; one about a migration that is over changes nothing."""
        match message:
            case Reserved(request) if request in self._moving:
                self._on_reserved(self._moving[request], message)
            case Grown(request) if request in self._moving:
                self._on_grown(self._moving[request], message)
            case Copied(request) if request in self._moving:
                self._on_copied(self._moving[request])
            case Arrived(request):
                self._on_arrived(request)
            case Cancelled(request):
                self._cancelling.discard(request)
            case Returned(request, reason):
                self._on_returned(request, reason)

    def _on_reserved(self, departure: _Departure, message: Reserved) -> None:
        if message.objection:
            self._end(departure, "refused", message.objection)
            return
        departure.room_tokens = message.room_tokens
        self._begin(departure)

    def _begin(self, departure: _Departure) -> None:
        departure.start_s = self._clock.now_s
        # Its next iteration is slower.
        self._server.wake(untimed=True)
        self._advance(departure)

    def _advance(self, departure: _Departure) -> None:
        """Do what the method says with a request that decodes here still."""
        index, engine = departure.wish.request, self._server.engine
        request = engine.find_decoding(index)
        assert request is not None, "a request that migrates decodes at its source until it departs"
        context_tokens = engine.context_tokens(request, self._server.iteration_under_way)
        left_blocks = engine.blocks_for(context_tokens - departure.copied_tokens)
        match self._method.next(self._rules, departure.stages, left_blocks):
            case Next.COPY:
                departure.stages += 1
                # It may have grown beyond its room while that was asked for.
                target_tokens = departure.target_tokens = min(context_tokens, departure.room_tokens)
                self._transport.copy(
                    request, self._server.number, departure.wish.to, departure.copied_tokens, target_tokens
                )
            case Next.LEAVE:
                engine.detach(request, self._clock.now_s)
                self._server.wake()
            case Next.GIVE_UP:
                self._call_off(departure, reasons.DIVERGED)

    def _on_copied(self, departure: _Departure) -> None:
        departure.copied_tokens = departure.target_tokens
        found = self._server.view.find(departure.wish.request)
        assert found is not None, "a request that migrates decodes at its source until it departs"
        self._make_room(departure, found.context_tokens + 1)

    def _make_room(self, departure: _Departure, tokens: int) -> None:
        """Go on once the destination has room for a context of so many tokens."""
        if tokens <= departure.room_tokens:
            self._go_on(departure)
        else:
            self._transport.send(self._server.number, departure.wish.to, Grow(departure.wish.request, tokens))

    def _on_grown(self, departure: _Departure, message: Grown) -> None:
        departure.room_tokens = message.room_tokens
        if message.ok:
            self._go_on(departure)
        else:
            self._call_off(departure, reasons.NO_ROOM)

    def _go_on(self, departure: _Departure) -> None:
        if departure.departed is None:
            self._advance(departure)
        else:
            self._hand_over(departure, departure.departed)

    # The request leaves.

    def on_departed(self, request: Request) -> None:
        """The request has left the batch: what is left of it goes too."""
        departure = self._moving.get(request.index)
        if departure is None:
            # Called off after the engine had been asked to let it go.
            self._restore(request)
            return
        departure.departed = request
        departure.pause_start_s = self._clock.now_s
        departure.context_tokens = request.total_tokens - 1
        if self._method.carries_kv:
            self._make_room(departure, departure.context_tokens)
        else:
            self._server.engine.drop(request)
            self._release(departure)
            self._server.wake(untimed=True)
            self._forward(departure, request)

    def _hand_over(self, departure: _Departure, request: Request) -> None:
        departure.stages += 1
        departure.target_tokens = departure.context_tokens
        self._transport.hand_over(
            request, self._server.number, departure.wish.to, departure.copied_tokens, departure.target_tokens
        )

    def _forward(self, departure: _Departure, request: Request) -> None:
        departure.pause_start_s = self._clock.now_s
        self._forwarded[request.index] = departure
        self._transport.forward(request, self._server.number, departure.wish.to)

    def _on_arrived(self, request: int) -> None:
        forwarded = self._forwarded.pop(request, None)
        if forwarded is not None:
            self._tell(forwarded, "done", "")
            return
        departure = self._moving[request]
        assert departure.departed is not None, "only a request that has departed arrives"
        departure.copied_tokens = departure.target_tokens
        self._server.engine.drop(departure.departed)
        self._end(departure, "done", "")

    def _on_returned(self, request: Request, reason: str) -> None:
        self._tell(self._forwarded.pop(request.index), "aborted", reason)
        self._on_orphan(request)

    # The migration comes to nothing.

    def on_ended(self, request: int) -> None:
        """A request has ended here; if it was migrating, that is over."""
        if request in self._moving:
            self._call_off(self._moving[request], reasons.ENDED)

    def on_preempted(self, request: int) -> None:
        """A request was preempted here; if it was migrating, that is over."""
        if request in self._moving:
            self._call_off(self._moving[request], reasons.PREEMPTED)

    def on_peer_died(self, instance: int) -> None:
        """An instance has died, and what was on its way there stays here."""
        for departure in [departure for departure in self._moving.values() if departure.wish.to == instance]:
            self._end(departure, "aborted", reasons.DESTINATION_DIED)
            if departure.departed is not None:
                self._restore(departure.departed)

    def on_death(self) -> list[Request]:
        """This instance has died; returns the requests that had left its batch, lost with their last blocks."""
        orphans = []
        for departure in list(self._moving.values()):
            if departure.departed is not None:
                departure.departed.held = None
                departure.departed.preemptions += 1
                orphans.append(departure.departed)
                departure.departed = None
            self._call_off(departure, reasons.SOURCE_DIED)
        return orphans

    def _call_off(self, departure: _Departure, reason: str) -> None:
        self._end(departure, "aborted", reason)
        index = departure.wish.request
        self._cancelling.add(index)
        self._transport.send(self._server.number, departure.wish.to, Cancel(index))
        if departure.departed is not None:
            self._restore(departure.departed)

    def _restore(self, request: Request) -> None:
        self._server.engine.restore(request, self._clock.now_s)
        self._server.wake()

    def _end(self, departure: _Departure, status: str, reason: str) -> None:
        self._transport.call_off(departure.wish.request, self._server.number)
        self._release(departure)
        if departure.start_s == departure.start_s:  # not NaN: it had begun
            # Its next iteration may go at full speed again.
            self._server.wake(untimed=True)
        self._tell(departure, status, reason)

    def _release(self, departure: _Departure) -> None:
        del self._moving[departure.wish.request]
        self._server.transfers -= 1

    def _tell(self, departure: _Departure, status: str, reason: str) -> None:
        now_s, wish = self._clock.now_s, departure.wish
        self._table.add(
            MigrationRow(
                request_id=wish.request,
                kind=wish.kind,
                source=self._server.number,
                destination=wish.to,
                asked_s=departure.asked_s,
                start_s=departure.start_s,
                pause_start_s=departure.pause_start_s,
                end_s=now_s,
                pause_s=now_s - departure.pause_start_s,
                context_tokens=departure.context_tokens,
                copied_bytes=departure.copied_tokens * self._kv_bytes_per_token,
                stages=departure.stages,
                status=status,
                reason=reason,
            )
        )
        self._on_end(wish.request, wish.to, status == "done", reason)
