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
from l4sim.specs.cluster import Cluster

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


@dataclass(slots=True, eq=False)
class _Migration:
    request: Request
    kind: str
    source: Server
    destination: Server
    asked_s: float
    reserved_blocks: int
    copied_tokens: int = 0
    target_tokens: int = 0
    """Tokens that will have been copied when the current stage ends."""
    stages: int = 0
    pause_start_s: float = math.nan
    over: bool = False


EndListener = Callable[[Server, int, int, bool, str], None]
"""Source, request, destination, whether done, reason."""


class Migrations:
    """All migrations of a cluster."""

    def __init__(
        self,
        clock: Clock,
        cluster: Cluster,
        kv_bytes_per_token: int,
        rules: MigrationRules,
        executor: Executor,
        on_end: EndListener,
    ) -> None:
        """``kv_bytes_per_token``: over all ranks of an instance, which send their shares in parallel."""
        self.rows = array("d")
        """Rows of the results' MIGRATIONS table."""
        self._clock = clock
        self._cluster = cluster
        self._kv_bytes_per_token = kv_bytes_per_token
        self._rules = rules
        self._executor = executor
        self._on_end = on_end
        self._active: dict[int, _Migration] = {}

    def ask(self, source: Server, request_index: int, destination: Server, kind: str) -> None:
        """Start a migration, or refuse it; the end listener hears of either outcome."""
        found = source.view.find(request_index)
        context_tokens = 0 if found is None else found.context_tokens
        reason = self._objection(source, request_index, destination)
        # One block more than now, so that a short copy need not ask again.
        blocks = blocks_for(context_tokens, source.instance.config.block_tokens) + 1
        if not reason and not destination.instance.reserve(blocks, destination.iteration_under_way):
            reason = _NO_ROOM
        request = source.instance.decoding.find(request_index)
        if reason or request is None:
            now_s = self._clock.now_s
            self._row(
                request_index,
                kind,
                source,
                destination,
                now_s,
                math.nan,
                math.nan,
                context_tokens,
                0,
                0,
                "refused",
                reason,
            )
            self._on_end(source, request_index, destination.number, False, REASONS[reason])
            return
        migration = _Migration(request, kind, source, destination, self._clock.now_s, blocks)
        self._active[request_index] = migration
        source.transfers += 1
        destination.transfers += 1
        destination.wake()
        self._copy(migration)

    def _objection(self, source: Server, request_index: int, destination: Server) -> int:
        if source is destination:
            return _SAME
        if source.instance.decoding.find(request_index) is None:
            return _NOT_DECODING
        if request_index in self._active:
            return _MIGRATING
        if source.transfers >= self._rules.max_concurrent:
            return _SOURCE_BUSY
        if destination.transfers >= self._rules.max_concurrent:
            return _DESTINATION_BUSY
        return _DONE

    def _copy(self, migration: _Migration) -> None:
        """Begin the next stage: copy what there is now and is not copied yet."""
        migration.stages += 1
        migration.target_tokens = self._context_tokens(migration)
        self._transfer(migration, self._on_stage_end)

    def _transfer(self, migration: _Migration, then: Action) -> None:
        tokens = migration.target_tokens - migration.copied_tokens
        link = self._cluster.link(migration.source.number, migration.destination.number)
        share_bytes = tokens * self._kv_bytes_per_token / self._cluster.tensor_parallel
        self._clock.at(self._clock.now_s + link.transfer_s(share_bytes), then, migration)

    def _copied(self, migration: _Migration) -> None:
        """A stage's transfer has ended."""
        source, destination = migration.source.number, migration.destination.number
        self._executor.copy(migration.request, source, destination, migration.copied_tokens, migration.target_tokens)
        migration.copied_tokens = migration.target_tokens

    def _context_tokens(self, migration: _Migration) -> int:
        found = migration.source.view.find(migration.request.index)
        assert found is not None, "a request that migrates decodes at its source until it departs"
        return found.context_tokens

    def _on_stage_end(self, moment: Moment) -> None:
        migration: _Migration = moment.value
        if migration.over:
            return
        self._copied(migration)
        block_tokens = migration.source.instance.config.block_tokens
        left_tokens = self._context_tokens(migration) - migration.copied_tokens
        if not self._grow_reservation(migration, self._context_tokens(migration) + 1):
            self._abort(migration, _NO_ROOM)
        elif left_tokens <= self._rules.last_stage_blocks * block_tokens:
            migration.source.instance.detach(migration.request, self._clock.now_s)
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

    def on_departed(self, request: Request) -> None:
        """The request has left the source's batch: copy what is left."""
        migration = self._active[request.index]
        context_tokens = request.total_tokens - 1
        migration.pause_start_s = self._clock.now_s
        if not self._grow_reservation(migration, context_tokens):
            migration.source.instance.restore(request, self._clock.now_s)
            self._abort(migration, _NO_ROOM)
            migration.source.wake()
            return
        migration.stages += 1
        migration.target_tokens = context_tokens
        self._transfer(migration, self._on_copied)

    def _on_copied(self, moment: Moment) -> None:
        migration: _Migration = moment.value
        self._copied(migration)
        request, source, destination = migration.request, migration.source, migration.destination
        source.instance.drop(request)
        request.migrations += 1
        request.last_instance = destination.number
        destination.instance.attach(request, migration.reserved_blocks, self._clock.now_s)
        self._end(migration, "done", _DONE)
        source.wake(freed=True)
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

    def _abort(self, migration: _Migration, reason: int) -> None:
        self._executor.discard(migration.request, migration.destination.number)
        migration.destination.instance.cancel_reservation(migration.reserved_blocks)
        self._end(migration, "aborted", reason)
        migration.destination.wake(freed=True)

    def _end(self, migration: _Migration, status: str, reason: int) -> None:
        migration.over = True
        request, source, destination = migration.request, migration.source, migration.destination
        del self._active[request.index]
        source.transfers -= 1
        destination.transfers -= 1
        self._row(
            request.index,
            migration.kind,
            source,
            destination,
            migration.asked_s,
            migration.asked_s,
            migration.pause_start_s,
            migration.target_tokens,
            migration.copied_tokens,
            migration.stages,
            status,
            reason,
        )
        self._on_end(source, request.index, destination.number, status == "done", REASONS[reason])

    def _row(
        self,
        request: int,
        kind: str,
        source: Server,
        destination: Server,
        asked_s: float,
        start_s: float,
        pause_start_s: float,
        context_tokens: int,
        copied_tokens: int,
        stages: int,
        status: str,
        reason: int,
    ) -> None:
        now_s = self._clock.now_s
        self.rows.extend(
            (
                request,
                KINDS.index(kind),
                source.number,
                destination.number,
                asked_s,
                start_s,
                pause_start_s,
                now_s,
                now_s - pause_start_s,
                context_tokens,
                copied_tokens * self._kv_bytes_per_token,
                stages,
                STATUSES.index(status),
                reason,
            )
        )
