"""One instance in time: runs its engine's steps, and skips over iterations in which nothing can change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from l4sim.engine.blocks import CacheLog
from l4sim.engine.invariants import check_engine
from l4sim.engine.protocol import Engine, Outcome, Step
from l4sim.engine.request import Request
from l4sim.policies.views import SOLE_KIND, DecodingRequest, InstanceKind, QueuedRequest
from l4sim.records import SegmentRow, Table, segment_table
from l4sim.runtime.clock import Clock, Moment
from l4sim.runtime.executor import Executor


class Listener(Protocol):
    """Hears what becomes of a server's requests."""

    def on_outcome(self, outcome: Outcome) -> None:
        """Requests have ended or crossed the watched boundary."""
        ...

    def on_departed(self, requests: Sequence[Request]) -> None:
        """Requests have left the batch to migrate."""
        ...

    def on_preempted(self, requests: Sequence[Request]) -> None:
        """Requests were preempted."""
        ...


class Server:
    """Drives one `Engine`: decide, execute, account.

    A step that may be repeated runs as one *segment*: iteration i of k takes first + i·(last - first)/(k - 1) seconds,
    which is exact for costs that are affine in the context lengths. An input that arrives meanwhile cuts the segment at
    the iteration that it can first be felt in; the event scheduled before is then stale, told by its version.
    """

    def __init__(
        self,
        number: int,
        engine: Engine,
        executor: Executor,
        clock: Clock,
        *,
        kind: InstanceKind = SOLE_KIND,
        slowdown: float = 0.0,
        validate: bool = False,
    ) -> None:
        """``slowdown``: the fraction by which iterations take longer while it takes part in a migration.

        ``validate``: check the engine's invariants whenever something has changed. A listener is to be set before the
        first step.
        """
        self.number = number
        self.engine = engine
        self.listener: Listener
        self.view = ServerView(self, kind)
        self.segments: Table[SegmentRow] = segment_table()
        self.alive = True
        self.transfers = 0
        """Migrations that it takes part in."""
        self.reports_finished = False
        """Whether its agent is told of requests that end."""
        self._executor = executor
        self._clock = clock
        self._slowdown = slowdown
        self._validate = validate
        self._lookahead = 1 if engine.config.async_scheduling else 0
        self._version = 0
        self._step: Step | None = None
        self._start_s = 0.0
        self._iterations = 0
        self._first_s = 0.0
        self._slope_s = 0.0
        self._kv_blocks_total = engine.kv_blocks_total
        self._began = (0.0, 0, 0)
        self._cache_log: CacheLog | None = None
        self._cache_changed: Callable[[int, Sequence[int], Sequence[int]], None] | None = None

    def report_cache(self, changed: Callable[[int, Sequence[int], Sequence[int]], None]) -> None:
        """From now on tell ``changed`` which KV blocks the instance stores and removes (`CacheHearing`)."""
        self._cache_log = self.engine.log_cache()
        self._cache_changed = changed

    # Inputs.

    def submit(self, request: Request) -> None:
        """Queue a new request."""
        engine = self.engine
        engine.add(request, self._clock.now_s)
        view = self.view
        view.waiting = len(engine.waiting)
        view.pending_prompt_tokens += engine.waiting_tokens - view.waiting_tokens
        view.waiting_tokens = engine.waiting_tokens
        if self._step is None or not engine.admission_blocked:
            self.wake()

    def wake(self, *, untimed: bool = False) -> None:
        """Let the instance see, as soon as its engine would, that something has changed.

        ``untimed``: what has changed carries no time (freed blocks, a boundary), so that the end of the iteration under
        way feels it already, one iteration before anything else that happens now.
        """
        if not self.alive:
            return
        if self._step is None:
            step = self.engine.plan(self._clock.now_s)
            if step is not None:
                self._run(step)
            self.report()
        elif self._iterations > 1:
            felt = self._iterations_until(self._clock.now_s) + (0 if untimed else self._lookahead)
            felt = max(felt, 1)
            if felt < self._iterations:
                self._iterations = felt
                self._schedule_end()

    def fail(self) -> list[Request]:
        """Stop for good; returns the requests that were here, with the tokens that they had got by now."""
        self.alive = False
        self._version += 1
        done = self.iteration_under_way - 1
        step, self._step = self._step, None
        if step is not None and done > 0:
            # Only a decode segment has iterations behind it; what they generated has reached the users.
            end_s = self._start_s + self._elapsed_s(done)
            self._iterations = done
            self._record(step, end_s)
            longest_s = max(self._first_s, self._first_s + self._slope_s * (done - 1))
            self.engine.account_last(done, end_s, longest_s)
        return self.engine.evacuate(step)

    @property
    def iteration_under_way(self) -> int:
        """Which iteration of the running segment is being executed, from 1; 1 where none runs."""
        if self._step is None or self._iterations == 1:
            return 1
        return min(max(self._iterations_until(self._clock.now_s), 1), self._iterations)

    # Segments.

    def _run(self, step: Step) -> None:
        engine = self.engine
        self._step = step
        self._start_s = self._clock.now_s
        self._iterations = iterations = step.iterations
        first_s, last_s = self._executor.execute(self.number, step, engine.decoding_requests)
        if self.transfers:
            first_s, last_s = first_s * (1.0 + self._slowdown), last_s * (1.0 + self._slowdown)
        self._first_s = first_s
        self._slope_s = (last_s - first_s) / (iterations - 1) if iterations > 1 else 0.0
        self._began = engine.snapshot()
        self._schedule_end()

    def _schedule_end(self) -> None:
        self._version += 1
        self._clock.at(self._start_s + self._elapsed_s(self._iterations), self._on_end, self._version)

    def _elapsed_s(self, iterations: int) -> float:
        return iterations * (self._first_s + self._slope_s * (iterations - 1) / 2)

    def _iterations_until(self, time_s: float) -> int:
        """The fewest iterations of the segment that end at ``time_s`` or later; 0 at its very start."""
        elapsed_s = time_s - self._start_s
        if elapsed_s <= 0:
            return 0
        linear = self._first_s - self._slope_s / 2
        root = math.sqrt(max(linear * linear + 2 * self._slope_s * elapsed_s, 0.0))
        count = max(math.ceil(2 * elapsed_s / (linear + root)) - 1, 1)
        while self._elapsed_s(count) < elapsed_s:
            count += 1
        return count

    def _on_end(self, moment: Moment) -> None:
        step = self._step
        if step is None or moment.value != self._version:
            return
        now_s = self._clock.now_s
        iterations = self._iterations
        longest_s, last_started_s = self._first_s, self._start_s
        if iterations > 1:
            longest_s = max(longest_s, longest_s + self._slope_s * (iterations - 1))
            last_started_s += self._elapsed_s(iterations - 1)
        self._record(step, now_s)
        engine = self.engine
        outcome = engine.commit(
            step,
            now_s,
            iterations=iterations,
            last_started_s=last_started_s,
            longest_s=longest_s,
        )
        if step.chunks:
            self._note_first_tokens(step, now_s)
        following = engine.plan(now_s)
        self._step = None
        if following is not None:
            self._run(following)
        self.report()
        # Listeners act on a server that is already running its next step, as a front end would find it.
        if outcome.finished or outcome.crossed:
            self.listener.on_outcome(outcome)
        if engine.departed:
            departed, engine.departed = engine.departed, []
            self.listener.on_departed(departed)
        if engine.preempted:
            preempted, engine.preempted = engine.preempted, []
            self.listener.on_preempted(preempted)

    def _note_first_tokens(self, step: Step, now_s: float) -> None:
        for chunk in step.chunks:
            if chunk.request.first_token_s == now_s:
                chunk.request.first_batch_tokens = step.batch.sampled

    def _record(self, step: Step, end_s: float) -> None:
        batch = step.batch
        chunks = step.chunks
        prefill_tokens = sum([chunk.tokens for chunk in chunks]) if chunks else 0
        context_std_tokens, waiting_requests, kv_blocks_used = self._began
        # In the order of a `SegmentRow`.
        self.segments.add_numbers(
            self.number,
            self._start_s,
            end_s,
            self._iterations,
            len(batch.decode_context_tokens),
            len(chunks),
            prefill_tokens,
            batch.decode_context_sum,
            context_std_tokens,
            waiting_requests,
            kv_blocks_used,
            self._kv_blocks_total,
        )

    def report(self) -> None:
        """Refresh the counts in the view."""
        engine, view = self.engine, self.view
        view.running = engine.running
        view.waiting = len(engine.waiting)
        view.waiting_tokens = engine.waiting_tokens
        pending = engine.waiting_tokens + engine.partial_tokens
        if self._step is not None and self._step.chunks:
            pending += sum([chunk.tokens for chunk in self._step.chunks])
        view.pending_prompt_tokens = pending
        log = self._cache_log
        if log is not None and (log.stored or log.removed):
            assert self._cache_changed is not None
            self._cache_changed(self.number, *log.drain())
        if self._validate:
            check_engine(self.number, engine)


class ServerView:
    """The `OwnView` of one server. Counts are refreshed in place; what grows with every token is read on demand."""

    __slots__ = ("_server", "instance", "kind", "pending_prompt_tokens", "running", "waiting", "waiting_tokens")

    def __init__(self, server: Server, kind: InstanceKind) -> None:
        self._server = server
        self.instance = server.number
        self.kind = kind
        self.running = 0
        self.waiting = 0
        self.waiting_tokens = 0
        self.pending_prompt_tokens = 0

    @property
    def as_of_s(self) -> float:
        """The current moment: the front end hears of an iteration as it ends."""
        return self._server._clock.now_s

    @property
    def kv_blocks_total(self) -> int:
        """KV blocks there are."""
        return self._server.engine.kv_blocks_total

    @property
    def kv_block_tokens(self) -> int:
        """Tokens of context for each KV block that they take."""
        return self._server.engine.config.tokens_per_block

    @property
    def kv_blocks_free(self) -> int:
        """KV blocks that no request holds."""
        return self._server.engine.kv_blocks_free(self._server.iteration_under_way)

    @property
    def context_tokens(self) -> int:
        """KV tokens of all decoding requests."""
        return self._server.engine.context_sum_tokens(self._server.iteration_under_way)

    def decoding(self) -> Sequence[DecodingRequest]:
        """The requests that decode now."""
        engine, iteration = self._server.engine, self._server.iteration_under_way
        return [
            DecodingRequest(r.index, engine.context_tokens(r, iteration), r.cached_tokens)
            for r in engine.decoding_requests
        ]

    def queued(self) -> Sequence[QueuedRequest]:
        """The requests that wait and have not begun, head first."""
        return [QueuedRequest(r.index, r.prompt_tokens, cached) for r, cached in self._server.engine.queued()]

    def find(self, request: int) -> DecodingRequest | None:
        """A decoding request by its number; None if it does not decode here (any more)."""
        engine = self._server.engine
        found = engine.find_decoding(request)
        if found is None:
            return None
        context_tokens = engine.context_tokens(found, self._server.iteration_under_way)
        return DecodingRequest(request, context_tokens, found.cached_tokens)
