"""Live migration of a decoding request: old KV blocks are copied while it decodes on; only the last few pause it.

As Llumnix does it (OSDI '24, section 4.2): each stage copies what was generated during the stage before; once no more
than `last_stage_blocks` are left, the request leaves the source's batch, the rest is copied, and it goes on at the
destination. It stays where it is when the destination has no room, or when the stages do not converge.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from l4sim.engine.blocks import blocks_for
from l4sim.engine.request import Request
from l4sim.simulator.clock import Action, Clock, Moment
from l4sim.simulator.executor import Executor
from l4sim.simulator.server import Server
from l4sim.simulator.transfers import Transfer, Transfers
from l4sim.specs.placement import Placement

KINDS = ("handover", "rebalance")
STATUSES = ("done", "refused", "aborted")
REASONS = (
    "",
    "the request does not decode at the source",
    "the request is migrating already",
    "the source takes part in as many migrations as it may",
    "the destination takes part in as many migrations as it may",
    "the destination has no room",
    "the request ended first",
    "the request was preempted first",
    "copying did not catch up with decoding",
    "the destination is the source",
    "the destination has died",
    "the source has died",
)
(
    _DONE,
    _NOT_DECODING,
    _MIGRATING,
    _SOURCE_BUSY,
    _DESTINATION_BUSY,
    _NO_ROOM,
    _ENDED,
    _PREEMPTED,
    _DIVERGED,
    _SAME,
    _DESTINATION_DIED,
    _SOURCE_DIED,
) = range(len(REASONS))


@dataclass(frozen=True, slots=True)
class MigrationRules:
    """When a migration may start, pause and give up."""

    max_concurrent: int = 3
    """Transfers that one instance takes part in at a time (the paper's figure)."""
    last_stage_blocks: int = 16
    """Blocks left at which the request is paused (Llumnix's figure)."""
    max_stages: int = 3
    """Copying stages before the last one; more than that aborts (Llumnix's figure)."""
    slowdown: float = 0.01
    """Fraction by which iterations of an instance that takes part in a migration take longer (Llumnix's bound)."""


@dataclass(slots=True, eq=False)
class _Migration:
    index: int
    """The request's number."""
    kind: str
    source: Server
    destination: Server
    asked_s: float
    context_tokens: int
    """When it was asked for, then when it left the source."""
    start_s: float = math.nan
    pause_start_s: float = math.nan
    reserved_blocks: int = 0
    copied_tokens: int = 0
    target_tokens: int = 0
    """Tokens that will have been copied when the current stage ends."""
    stages: int = 0
    transfer: Transfer | None = None
    """The copy under way."""
    departed: Request | None = None
    """The request, once it has left the source's batch."""
    over: bool = False


EndListener = Callable[[Server, int, int, bool, str], None]
"""Source, request, destination, whether done, reason."""


class Migrations:
    """All migrations of a cluster."""

    def __init__(
        self,
        clock: Clock,
        cluster: Placement,
        kv_bytes_per_token: int,
        rules: MigrationRules,
        executor: Executor,
        on_end: EndListener,
        on_orphan: Callable[[Request], None],
    ) -> None:
        """``kv_bytes_per_token``: over all ranks of an instance, which send their shares in parallel.

        ``on_orphan`` takes requests whose destination died while they were on their way.
        """
        self.rows = array("d")
        """Rows of the results' MIGRATIONS table."""
        self._clock = clock
        self._cluster = cluster
        self._kv_bytes_per_token = kv_bytes_per_token
        self._rules = rules
        self._executor = executor
        self._on_end = on_end
        self._on_orphan = on_orphan
        self._transfers = Transfers(clock, cluster)
        self._active: dict[int, _Migration] = {}

    def ask(self, source: Server, request_index: int, destination: Server, kind: str) -> None:
        """Start a migration, or refuse it; the end listener hears of either outcome.

        A request that waits and has not begun has no KV: it is sent on as it is.
        """
        found = source.view.find(request_index)
        now_s = self._clock.now_s
        migration = _Migration(
            request_index, kind, source, destination, now_s, 0 if found is None else found.context_tokens
        )
        if found is None and destination.alive and destination is not source:
            request = source.instance.withdraw(request_index)
            if request is not None:
                self._forward(migration, request)
                return
        reason = self._objection(migration)
        # One block more than now, so that a short copy need not ask again.
        blocks = blocks_for(migration.context_tokens, source.instance.config.block_tokens) + 1
        if not reason and not destination.instance.reserve(blocks, destination.iteration_under_way):
            reason = _NO_ROOM
        if reason:
            self._tell(migration, "refused", reason)
            return
        migration.start_s = now_s
        migration.reserved_blocks = blocks
        self._active[request_index] = migration
        source.transfers += 1
        destination.transfers += 1
        # Both go slower from their next iteration on.
        source.wake(untimed=True)
        destination.wake(untimed=True)
        self._copy(migration)

    def _objection(self, migration: _Migration) -> int:
        source, destination = migration.source, migration.destination
        if source is destination:
            return _SAME
        if not destination.alive:
            return _DESTINATION_DIED
        if source.instance.decoding.find(migration.index) is None:
            return _NOT_DECODING
        if migration.index in self._active:
            return _MIGRATING
        if source.transfers >= self._rules.max_concurrent:
            return _SOURCE_BUSY
        if destination.transfers >= self._rules.max_concurrent:
            return _DESTINATION_BUSY
        return _DONE

    def _forward(self, migration: _Migration, request: Request) -> None:
        migration.start_s = migration.pause_start_s = self._clock.now_s
        # What stood behind it in the queue may have room now.
        migration.source.wake(untimed=True)
        migration.source.report()
        link = self._cluster.link(migration.source.number, migration.destination.number)
        self._clock.at(self._clock.now_s + link.latency_s, self._on_forwarded, (migration, request))

    def _on_forwarded(self, moment: Moment) -> None:
        migration, request = moment.value
        if not migration.destination.alive:
            self._tell(migration, "aborted", _DESTINATION_DIED)
            self._on_orphan(request)
            return
        request.migrations += 1
        request.last_instance = migration.destination.number
        if request.first_instance == migration.source.number:
            request.first_instance = migration.destination.number
        migration.destination.submit(request)
        self._tell(migration, "done", _DONE)

    def _copy(self, migration: _Migration) -> None:
        """Begin the next stage: copy what there is now and is not copied yet."""
        migration.stages += 1
        migration.target_tokens = self._context_tokens(migration)
        self._transfer(migration, self._on_stage_end)

    def _transfer(self, migration: _Migration, then: Action) -> None:
        tokens = migration.target_tokens - migration.copied_tokens
        share_bytes = tokens * self._kv_bytes_per_token / self._cluster.tensor_parallel
        migration.transfer = self._transfers.begin(
            migration.source.number, migration.destination.number, share_bytes, then, migration
        )

    def _copied(self, migration: _Migration, request: Request) -> None:
        """A stage's transfer has ended."""
        source, destination = migration.source.number, migration.destination.number
        self._executor.copy(request, source, destination, migration.copied_tokens, migration.target_tokens)
        migration.copied_tokens = migration.target_tokens

    def _context_tokens(self, migration: _Migration) -> int:
        found = migration.source.view.find(migration.index)
        assert found is not None, "a request that migrates decodes at its source until it departs"
        return found.context_tokens

    def _on_stage_end(self, moment: Moment) -> None:
        migration: _Migration = moment.value
        request = migration.source.instance.decoding.find(migration.index)
        if migration.over or request is None:
            return
        self._copied(migration, request)
        block_tokens = migration.source.instance.config.block_tokens
        context_tokens = self._context_tokens(migration)
        left_tokens = context_tokens - migration.copied_tokens
        if not self._grow_reservation(migration, context_tokens + 1):
            self._abort(migration, _NO_ROOM)
        elif left_tokens <= self._rules.last_stage_blocks * block_tokens:
            migration.source.instance.detach(request, self._clock.now_s)
            migration.source.wake()
        elif migration.stages >= self._rules.max_stages:
            self._abort(migration, _DIVERGED)
        else:
            self._copy(migration)

    def _grow_reservation(self, migration: _Migration, tokens: int) -> bool:
        destination = migration.destination
        more = blocks_for(tokens, destination.instance.config.block_tokens) - migration.reserved_blocks
        if more <= 0:
            return True
        if not destination.instance.reserve_more(more, destination.iteration_under_way):
            return False
        migration.reserved_blocks += more
        destination.wake()
        return True

    def on_departed(self, source: Server, request: Request) -> None:
        """The request has left the source's batch: copy what is left."""
        migration = self._active.get(request.index)
        if migration is None:
            # The migration was aborted after the engine had been asked to let the request go.
            self._restore(source, request)
            return
        migration.departed = request
        migration.context_tokens = request.total_tokens - 1
        migration.pause_start_s = self._clock.now_s
        if not self._grow_reservation(migration, migration.context_tokens):
            self._abort(migration, _NO_ROOM)
            return
        migration.stages += 1
        migration.target_tokens = migration.context_tokens
        self._transfer(migration, self._on_copied)

    def _on_copied(self, moment: Moment) -> None:
        migration: _Migration = moment.value
        request, source, destination = migration.departed, migration.source, migration.destination
        if migration.over or request is None:
            return
        self._copied(migration, request)
        source.instance.drop(request)
        request.migrations += 1
        request.last_instance = destination.number
        destination.instance.attach(request, migration.reserved_blocks, self._clock.now_s)
        self._end(migration, "done", _DONE)
        source.wake(untimed=True)
        destination.wake()

    def on_ended(self, request: Request) -> None:
        """A request has ended; if it was migrating, that is over."""
        migration = self._active.get(request.index)
        if migration is not None:
            self._abort(migration, _ENDED)

    def on_preempted(self, request: Request) -> None:
        """A request was preempted; if it was migrating, that is over."""
        migration = self._active.get(request.index)
        if migration is not None:
            self._abort(migration, _PREEMPTED)

    def on_failure(self, server: Server) -> list[Request]:
        """An instance dies; returns the requests that had left its batch and are lost with their last blocks."""
        orphans = []
        for migration in list(self._active.values()):
            if migration.source is server:
                if migration.departed is not None:
                    migration.departed.held_ids.clear()
                    migration.departed.preemptions += 1
                    orphans.append(migration.departed)
                    migration.departed = None
                self._abort(migration, _SOURCE_DIED)
            elif migration.destination is server:
                self._abort(migration, _DESTINATION_DIED)
        return orphans

    def _restore(self, source: Server, request: Request) -> None:
        source.instance.restore(request, self._clock.now_s)
        source.wake()

    def _abort(self, migration: _Migration, reason: int) -> None:
        destination = migration.destination
        if reason != _DESTINATION_DIED:
            self._executor.discard(migration.index, destination.number)
            destination.instance.cancel_reservation(migration.reserved_blocks)
        self._end(migration, "aborted", reason)
        if migration.departed is not None:
            self._restore(migration.source, migration.departed)
        destination.wake(untimed=True)

    def _end(self, migration: _Migration, status: str, reason: int) -> None:
        migration.over = True
        del self._active[migration.index]
        if migration.transfer is not None:
            self._transfers.cancel(migration.transfer)
        for server in (migration.source, migration.destination):
            server.transfers -= 1
            # Its next iteration may go at full speed again.
            server.wake(untimed=True)
        self._tell(migration, status, reason)

    def _tell(self, migration: _Migration, status: str, reason: int) -> None:
        now_s = self._clock.now_s
        source, destination = migration.source.number, migration.destination.number
        self.rows.extend(
            (
                migration.index,
                KINDS.index(migration.kind),
                source,
                destination,
                migration.asked_s,
                migration.start_s,
                migration.pause_start_s,
                now_s,
                now_s - migration.pause_start_s,
                migration.context_tokens,
                migration.copied_tokens * self._kv_bytes_per_token,
                migration.stages,
                STATUSES.index(status),
                reason,
            )
        )
        self._on_end(migration.source, migration.index, destination, status == "done", REASONS[reason])
