"""vLLM V1's scheduling rules: what the next iteration computes.

After `v1/core/sched/scheduler.py`: running requests first, in the order of admission (one token each, or the next piece
of a prompt), then waiting requests, under a token budget (chunked prefill). A request that finds no KV block preempts
the latest one, or the least urgent, which starts over from the queue; an iteration that preempts admits nobody.

While blocks last, and one prompt at most is partly done, the order among running requests decides nothing: who decodes
is counted, not visited. Where blocks are short they have their turns one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from operator import attrgetter

from l4sim.batch import Batch, Prefill
from l4sim.engine.blocks import BlockPool, blocks_for
from l4sim.engine.config import EngineConfig
from l4sim.engine.decoding import DecodingSet
from l4sim.engine.latency import LongestSince
from l4sim.engine.protocol import Chunk, Step
from l4sim.engine.request import NO_SLOT, Request
from l4sim.engine.vllm.prefix_cache import PrefixCachingPool
from l4sim.engine.vllm.versions import VLLM_0_32, VLLMRules
from l4sim.engine.vllm.waiting import QUEUES, WaitingQueue

by_order = attrgetter("order")
"""Sorts running requests into the order of their admission."""


class Scheduling:
    """Queue, batch and blocks of one instance, and who is served next."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        rules: VLLMRules = VLLM_0_32,
        max_iterations: int | None = None,
        pool: BlockPool | None = None,
    ) -> None:
        """Make one engine of a version's ``rules``; the others are those of `l4sim.engine.protocol.EngineFactory`."""
        self.config = config
        self.rules = rules
        self.decoding = DecodingSet(config.max_num_seqs, config.block_tokens)
        self.decoding_requests: Sequence[Request] = self.decoding.requests
        if pool is not None:
            self.pool = pool
        elif config.prefix_caching:
            self.pool = PrefixCachingPool(config.kv_blocks, config.block_tokens, unhashed_first=rules.unhashed_first)
        else:
            self.pool = BlockPool(config.kv_blocks, config.block_tokens)
        self.waiting: WaitingQueue = QUEUES[config.scheduling_policy]()
        self.waiting_tokens = 0
        self.admission_blocked = False
        self.departed: list[Request] = []
        self.preempted: list[Request] = []
        self._max_iterations = max_iterations
        self._partials: list[Chunk] = []
        self._sitting_out: list[Request] = []
        self._admitted = 0
        self._preempting = False
        self._ending = 0
        self._away = 0
        self._finishing: list[Request] = []
        self._attaching: deque[tuple[float, Request, int]] = deque()
        self._detaching: deque[tuple[float, Request]] = deque()
        self._incoming = 0
        self._joined: list[Request] = []
        self._ahead: Step | None = None
        self._started_s = 0.0
        self._committed_s = 0.0
        self._itl = LongestSince()

    @property
    def running(self) -> int:
        """Requests admitted and not yet ended: decoding, prompts in progress, and those about to migrate away."""
        waiting_to_go_on = len(self._finishing) + len(self._sitting_out) + self._away
        return len(self.decoding.requests) + self._ending + len(self._partials) + waiting_to_go_on

    def _schedule(self, now_s: float) -> Step | None:
        """The next iteration, from what had happened by ``now_s``."""
        if self._sitting_out or self._attaching or self._detaching:
            self._move(now_s)
        decoding, pool, config = self.decoding, self.pool, self.config
        most = config.max_num_batched_tokens
        cap = self._longest_chunk(now_s) if config.long_prefill_token_threshold else most
        decode_blocks = needed = decoding.blocks_next()
        budget = most - len(decoding.requests)
        shares: list[tuple[Chunk, int]] = []
        for partial in self._partials:
            tokens, blocks = self._wanted(partial, min(cap, budget))
            shares.append((partial, tokens))
            needed += blocks
            budget -= tokens
        self._preempting = needed > pool.free
        if self._preempting:
            chunks = self._schedule_short(now_s, cap)
        else:
            if decode_blocks:
                pool.take(decode_blocks)
            chunks = self._continue(shares) if shares else []
            self.admission_blocked = False
            if self.waiting:
                self._admit(chunks, budget, cap, now_s)
        if not chunks and not decoding.requests:
            return None
        return self._step(chunks)

    def _continue(self, shares: list[tuple[Chunk, int]]) -> list[Chunk]:
        """Compute so many tokens each of the prompts in progress."""
        # Those that migrated here may leave a prompt without any; vLLM's own never ask for more than there are.
        self._partials = [partial for partial, tokens in shares if not tokens]
        return [self._compute(partial.request, partial.done_tokens, tokens) for partial, tokens in shares if tokens]

    def _step(self, chunks: list[Chunk]) -> Step:
        decoding = self.decoding
        contexts = decoding.contexts_next()
        context_sum = decoding.context_sum + len(contexts)
        if chunks:
            prefills = tuple([Prefill(chunk.tokens, chunk.done_tokens, chunk.ends) for chunk in chunks])
            return Step(Batch(contexts, context_sum, prefills), tuple(chunks), 1)
        iterations = 1
        passing = self._partials or self._preempting or self._joined
        unseen = self._attaching or self._detaching or (self.waiting and not self.admission_blocked)
        freed_soon = self._finishing and self.waiting
        if not (passing or unseen or freed_soon or self._max_iterations == 1):
            iterations = decoding.quiet_iterations(self.pool.free)
            if self._max_iterations is not None and iterations > self._max_iterations:
                iterations = self._max_iterations
        return Step(Batch(contexts, context_sum), (), iterations)

    def _move(self, now_s: float) -> None:
        """Let requests that sat out or migrate into the batch, and those that migrate away out of it."""
        for request in self._sitting_out:
            self._join(request, request.total_tokens - 1)
        self._sitting_out.clear()
        while self._detaching and self._detaching[0][0] <= now_s:
            _, request = self._detaching.popleft()
            if self.decoding.find(request.index) is request:
                self._leave(request)
                self._away += 1
                self.departed.append(request)
        while self._attaching and self._attaching[0][0] <= now_s:
            _, request, reserved = self._attaching.popleft()
            context_tokens = request.total_tokens - 1
            self._settle(request, reserved, context_tokens)
            self.pool.answers(request, self._hashed_tokens)
            self._incoming -= 1
            self._line_up(request)
            self._join(request, context_tokens)

    def _settle(self, request: Request, reserved: int, context_tokens: int) -> None:
        """Let a request that has come with its KV hold of the reserved blocks what it needs."""
        self.pool.give(reserved - blocks_for(context_tokens, self.config.block_tokens))
        self.pool.computed(request, context_tokens)

    def _line_up(self, request: Request) -> None:
        """Give a request its place behind all that run."""
        self._admitted += 1
        request.order = self._admitted

    def _join(self, request: Request, context_tokens: int) -> None:
        """Let a request decode whose last token is older than an iteration."""
        self.decoding.join(request, context_tokens)
        request.lag_from = self.decoding.iteration + 1
        self._joined.append(request)

    def _leave(self, request: Request) -> None:
        """Take a decoding request out of the batch."""
        self.decoding.leave(request)
        if request in self._joined:
            self._joined.remove(request)
        else:
            self._pause_clock(request)

    def _hashed_tokens(self, request: Request, *, served: bool = True) -> int:
        """Tokens of a request behind its prompt that have their hash; ``served``: once it is in the planned iteration.

        Asynchronously its last token is in flight when that is planned: what its KV stands for is not known yet.
        """
        asynchronous = self.config.async_scheduling
        if served and request.slot != NO_SLOT:
            return self.decoding.context_tokens(request) + 1 - (asynchronous and request not in self._joined)
        context = request.total_tokens - 1 if request.slot == NO_SLOT else self.decoding.context_tokens(request)
        return context - (asynchronous and self.decoding.iteration > request.lag_from)

    def _longest_chunk(self, now_s: float) -> int:
        """The most prompt tokens that one request may compute in an iteration, where there is a threshold."""
        if self.rules.lone_prompt_uncapped and self._alone(now_s):
            return self.config.max_num_batched_tokens
        return self.config.long_prefill_token_threshold

    def _alone(self, now_s: float) -> bool:
        """Whether there is one request at most, running or waiting."""
        visible = (request for request in self.waiting if request.ready_s <= now_s)
        return self.running + len(list(islice(visible, 2))) <= 1

    def _wanted(self, partial: Chunk, most: int) -> tuple[int, int]:
        """The next tokens of a prompt in progress, at most so many, and the new blocks for them."""
        done, size = partial.done_tokens, self.config.block_tokens
        tokens = min(partial.request.total_tokens - done, most)
        return tokens, blocks_for(done + tokens, size) - blocks_for(done, size)

    def _compute(self, request: Request, done: int, tokens: int) -> Chunk:
        """Compute the next tokens of a prompt of which ``done`` are there, taking their blocks."""
        size = self.config.block_tokens
        reach = done + tokens
        blocks = blocks_for(reach, size) - blocks_for(done, size)
        if blocks:
            self.pool.take(blocks)
        ends = reach == request.total_tokens
        if ends:
            self._ending += 1
        else:
            self._partials.append(Chunk(request, 0, reach, False))
        # vLLM hashes a block when it is scheduled, not when it is computed: whoever hits it runs after it anyway.
        self.pool.computed(request, reach)
        return Chunk(request, tokens, done, ends)

    def _admit(self, chunks: list[Chunk], budget: int, cap: int, now_s: float) -> None:
        """Move requests from the head of the queue into the batch while budget, places and blocks last."""
        config, pool, waiting = self.config, self.pool, self.waiting
        places = config.max_num_seqs - self.running - self._incoming
        while budget > 0:
            request = waiting.first(now_s)
            if request is None:
                return
            # Behind a head that is not seen yet nothing is settled.
            is_head = request is waiting[0]
            if places <= 0:
                self.admission_blocked = is_head
                return
            match = pool.match(request)
            total = request.total_tokens
            tokens = min(total - match.tokens, cap, budget)
            asked = total if config.reserve_full_prompt else match.tokens + tokens
            if blocks_for(asked, config.block_tokens) - match.blocks > pool.free - match.idle_blocks:
                # Without reservation, a head whose cached blocks are evicted asks for a shorter chunk's blocks only.
                self.admission_blocked = is_head and (config.reserve_full_prompt or not match.idle_blocks)
                return
            waiting.remove(request)
            self.waiting_tokens -= total
            pool.hold(request, match)
            if not request.has_begun:
                request.scheduled_s = now_s
                request.cached_tokens = match.tokens
            self._line_up(request)
            chunks.append(self._compute(request, match.tokens, tokens))
            places -= 1
            budget -= tokens

    # Short of blocks.

    def _schedule_short(self, now_s: float, cap: int) -> list[Chunk]:
        """The running requests' next iteration where their blocks are short: nobody is admitted, some are preempted.

        One after the other takes its blocks, in the order of admission. Whoever finds none preempts until it does, or
        until it is its own turn to be preempted; who comes behind that has no share in this iteration.
        """
        decoding, pool, size = self.decoding, self.pool, self.config.block_tokens
        partials = {partial.request: partial for partial in self._partials}
        self._partials = []
        running = sorted((*decoding.requests, *partials, *self._finishing), key=by_order)
        budget = self.config.max_num_batched_tokens
        chunks: dict[Request, Chunk] = {}
        served: dict[Request, int] = {}
        at = 0
        while at < len(running) and budget > 0:
            request = running[at]
            if request in self._finishing:
                at += 1
                continue
            if request in partials:
                tokens, blocks = self._wanted(partials[request], min(cap, budget))
            else:
                tokens, blocks = 1, int(decoding.context_tokens(request) % size == 0)
            while blocks > pool.free and request in running:
                had, at = self._preempt_one(running, at, served, chunks, partials, now_s)
                budget += had
            if request not in running:
                break
            served[request] = tokens
            budget -= tokens
            if request in partials:
                chunks[request] = self._compute(request, partials[request].done_tokens, tokens)
            else:
                pool.take(blocks)
            at += 1
        self._leave_out([request for request in running if request not in served], partials)
        return [chunks[request] for request in running if request in chunks]

    def _preempt_one(
        self,
        running: list[Request],
        at: int,
        served: dict[Request, int],
        chunks: dict[Request, Chunk],
        partials: Mapping[Request, Chunk],
        now_s: float,
    ) -> tuple[int, int]:
        """Preempt one of the running: the tokens that it gives back, and whose turn it then is in their order."""
        victim = self._victim(running)
        place = running.index(victim)
        del running[place]
        had = served.pop(victim, 0)
        if place < at and (had or self.rules.victims_keep_turns):
            at -= 1
        self._preempt(victim, chunks.pop(victim, partials.get(victim)), served=had > 0, now_s=now_s)
        return had, at

    def _leave_out(self, left: Sequence[Request], partials: Mapping[Request, Chunk]) -> None:
        """Who has no share in this iteration: prompts stay in progress, those that decode sit out."""
        self._partials += [partials[request] for request in left if request in partials]
        self._partials.sort(key=lambda partial: partial.request.order)
        out = set(left)
        for request in [request for request in self.decoding.requests if request in out]:
            self._leave(request)
            self._sitting_out.append(request)

    def _victim(self, running: Sequence[Request]) -> Request:
        """Whom to preempt: the latest, or of the least urgent the latest to have arrived."""
        if self.config.scheduling_policy == "fcfs":
            return running[-1]
        return max(running, key=lambda request: (request.priority, request.arrival_s))

    def _preempt(self, request: Request, chunk: Chunk | None, *, served: bool, now_s: float) -> None:
        """Take a running request's blocks away; it starts over from the queue.

        ``chunk``: its prompt in progress, if it is; ``served``: whether it has its share of this iteration already,
        blocks and hashes included.
        """
        request.preemptions += 1
        if chunk is not None:
            hashed = tokens = chunk.done_tokens + chunk.tokens
            self._ending -= chunk.ends
            self._partials = [partial for partial in self._partials if partial.request is not request]
        else:
            hashed = self._hashed_tokens(request, served=served)
            if request.slot != NO_SLOT:
                self._leave(request)
            tokens = request.total_tokens - (not served)
        self.pool.release(request, tokens, hashed)
        if request in self._finishing:
            # Its last token is on its way: all that it loses are blocks that it has no more use for.
            self._finishing.remove(request)
            return
        self.preempted.append(request)
        request.ready_s = now_s
        self.waiting.appendleft(request)
        self.waiting_tokens += request.total_tokens

    def _pause_clock(self, request: Request) -> None:
        request.last_token_s = self._committed_s
        request.max_itl_s = max(request.max_itl_s, self._itl.since(request.span_start))
