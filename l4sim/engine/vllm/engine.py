"""vLLM V1's scheduling rules: an `Engine` (`l4sim.engine.protocol` has its loop and what may be asked of it).

The rules followed are those of vLLM 0.19's `v1/core/sched/scheduler.py`: running requests first (one token each), then
the prompt that is partly done, then waiting requests in order of arrival, under a token budget (chunked prefill); a
request that finds no KV block preempts the latest one, which starts over from the head of the queue; nothing is
admitted in an iteration that preempts. At most one prompt is partly done at any time, and it is the latest: whoever
cuts a prompt short has used up the budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from operator import attrgetter

from l4sim.batch import Batch, Prefill
from l4sim.engine.blocks import BlockPool, blocks_for
from l4sim.engine.config import EngineConfig
from l4sim.engine.decoding import DecodingSet
from l4sim.engine.latency import LongestSince
from l4sim.engine.protocol import Chunk, Outcome, Snapshot, Step
from l4sim.engine.request import NO_SLOT, Request
from l4sim.engine.vllm.prefix_cache import PrefixCachingPool
from l4sim.engine.vllm.versions import VLLM_0_32, VLLMRules
from l4sim.engine.vllm.waiting import QUEUES, WaitingQueue

_order = attrgetter("order")


class VLLMEngine:
    """An `Engine` by the rules of vLLM."""

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

    # What others may ask.

    @property
    def running(self) -> int:
        """Requests admitted and not yet ended: decoding, prompts in progress, and those about to migrate away."""
        prompts = self._ending + len(self._partials)
        others = len(self._finishing) + len(self._sitting_out) + self._away
        return len(self.decoding.requests) + prompts + others

    @property
    def requests(self) -> int:
        """Requests that are here, whatever they do."""
        return self.running + len(self.waiting) + len(self._attaching)

    @property
    def idle(self) -> bool:
        """Whether nothing is here: no request, and no room set aside for one."""
        return not (self.requests or self._incoming)

    @property
    def kv_blocks_total(self) -> int:
        """KV blocks there are."""
        return self.pool.total

    @property
    def kv_blocks_used(self) -> int:
        """KV blocks that are held or set aside."""
        return self.pool.total - self.pool.free

    def snapshot(self) -> Snapshot:
        """What the table of segments tells of the moment at which one begins."""
        pool = self.pool
        return self.decoding.context_std, len(self.waiting), pool.total - pool.free

    def kv_blocks_free(self, iteration: int = 1) -> int:
        """KV blocks that no request holds."""
        return self.pool.free - (self.decoding.blocks_needed(iteration) - self.decoding.blocks_next())

    def context_sum_tokens(self, iteration: int = 1) -> int:
        """KV tokens of all decoding requests."""
        return self.decoding.context_sum + len(self.decoding) * (iteration - 1)

    def context_tokens(self, request: Request, iteration: int = 1) -> int:
        """KV tokens of a decoding request."""
        return self.decoding.context_tokens(request) + iteration - 1

    def find_decoding(self, index: int) -> Request | None:
        """A decoding request by its number; None if it does not decode here."""
        return self.decoding.find(index)

    def queued(self) -> Sequence[tuple[Request, int]]:
        """Requests that wait and have not begun, head first, each with its prompt tokens in the prefix cache."""
        return [(request, self.pool.match(request).tokens) for request in self.waiting if not request.has_begun]

    def blocks_for(self, tokens: int) -> int:
        """KV blocks that a context of so many tokens takes."""
        return blocks_for(tokens, self.config.block_tokens)

    @property
    def partial_tokens(self) -> int:
        """Tokens of prompts in progress that no planned iteration computes yet."""
        return sum([partial.request.total_tokens - partial.done_tokens for partial in self._partials])

    def refusal(self, request: Request) -> str | None:
        """Why a request can never be served here; None if it can."""
        total = request.prompt_tokens + request.output_tokens
        if total > self.config.max_model_len:
            return f"prompt and output exceed max_model_len {self.config.max_model_len}"
        blocks = blocks_for(total - 1, self.config.block_tokens)
        if blocks > self.config.kv_blocks:
            return f"prompt and output need more than the instance's {self.config.kv_blocks} KV blocks"
        return None

    # Stimuli. Their times let a step that was planned earlier not see them.

    def add(self, request: Request, now_s: float) -> None:
        """Queue a request that `refusal` has nothing against."""
        request.ready_s = now_s
        self.waiting.append(request)
        self.waiting_tokens += request.total_tokens
        if self.waiting[0] is request:
            self.admission_blocked = False

    def watch(self, boundary_tokens: int | None) -> None:
        """From now on report decoding requests whose context reaches this length; None stops it."""
        self.decoding.watch(boundary_tokens)

    def detach(self, request: Request, now_s: float) -> None:
        """Let a decoding request leave the batch with the next iteration planned from ``now_s`` on."""
        self._detaching.append((now_s, request))

    def spare_blocks(self, iteration: int = 1) -> int:
        """Blocks that a newcomer may have: all that are free but those that decoding takes in the next iteration.

        ``iteration``: which of the running step's iterations is under way, from 1.
        """
        decoding = self.decoding
        return self.pool.free - (decoding.blocks_needed(iteration + 1) - decoding.blocks_next())

    def reserve(self, blocks: int, iteration: int = 1) -> bool:
        """Set blocks and a place in the batch aside for a request that migrates here; False if there is no room."""
        if blocks > self.spare_blocks(iteration) or self.running + self._incoming >= self.config.max_num_seqs:
            return False
        self.pool.take(blocks)
        self._incoming += 1
        return True

    def reserve_more(self, blocks: int, iteration: int = 1) -> bool:
        """Set more blocks aside for a request that has grown while it was copied."""
        if blocks > self.spare_blocks(iteration):
            return False
        self.pool.take(blocks)
        return True

    def cancel_reservation(self, blocks: int) -> None:
        """Give back what `reserve` and `reserve_more` set aside."""
        self.pool.give(blocks)
        self._incoming -= 1

    def attach(self, request: Request, reserved_blocks: int, now_s: float) -> None:
        """Let a migrated request, whose KV is in the reserved blocks, decode here from the next planned step on."""
        self._attaching.append((now_s, request, reserved_blocks))

    def drop(self, request: Request) -> None:
        """Free the blocks of a departed request."""
        self._away -= 1
        kv_tokens = request.total_tokens - 1
        self.pool.release(request, kv_tokens, kv_tokens)

    def restore(self, request: Request, now_s: float) -> None:
        """Let a departed request, whose blocks are still here, decode on."""
        self._away -= 1
        self._incoming += 1
        self.attach(request, blocks_for(request.total_tokens - 1, self.config.block_tokens), now_s)

    def withdraw(self, index: int) -> Request | None:
        """Take a request that has not begun out of the queue; None if there is no such one."""
        for request in self.waiting:
            if request.index == index and not request.has_begun:
                self.waiting.remove(request)
                self.waiting_tokens -= request.total_tokens
                self.admission_blocked = False
                return request
        return None

    def account_last(self, iterations: int, now_s: float, longest_s: float) -> None:
        """Account for the first iterations of a repeated step in which the instance has died: nothing follows them."""
        self._committed_s = now_s
        self._itl.add(longest_s)
        self.decoding.advance(iterations)

    def evacuate(self, step: Step | None) -> list[Request]:
        """The instance has died in ``step``: all requests that were here, ready to start over elsewhere."""
        held: dict[int, Request] = {}
        for request in list(self.decoding.requests):
            self.decoding.leave(request)
            if request not in self._joined:
                self._pause_clock(request)
            held[request.index] = request
        chunks = () if step is None else step.chunks
        for chunk in (*chunks, *self._partials):
            held[chunk.request.index] = chunk.request
        for request in (*self._sitting_out, *self.departed, *(request for _, request, _ in self._attaching)):
            held[request.index] = request
        for request in held.values():
            # As a preemption does, a death makes it start over.
            request.preemptions += 1
        for request in (*held.values(), *self.waiting):
            request.held = None
        return [*held.values(), *self.waiting]

    # The loop.

    def plan(self, now_s: float) -> Step | None:
        """What to run now; None if there is nothing to do."""
        step, self._ahead = self._ahead, None
        if step is None:
            step = self._schedule(now_s)
            while step is None and self._preempting:
                # An engine whose batch is empty goes round again at once.
                step = self._schedule(now_s)
        self._started_s = now_s
        return step

    def commit(
        self,
        step: Step,
        now_s: float,
        *,
        iterations: int = 1,
        last_started_s: float | None = None,
        longest_s: float | None = None,
    ) -> Outcome:
        """Account for a step that has run ``iterations`` times and ended at ``now_s``.

        ``last_started_s``: when the last of these iterations began (default: when the step was planned);
        ``longest_s``: the longest of them (default: the whole step).
        """
        if last_started_s is None:
            last_started_s = self._started_s
        self._committed_s = now_s
        self._itl.add(now_s - self._started_s if longest_s is None else longest_s)
        if iterations > 1:
            blocks = self.decoding.blocks_needed(iterations) - self.decoding.blocks_next()
            if blocks:
                self.pool.take(blocks)
        finished, crossed = self.decoding.advance(iterations)
        for request in self._joined:
            self._resume_clock(request, now_s)
        self._joined.clear()
        self._ending = 0
        for chunk in step.chunks:
            if chunk.ends:
                self._sample_first(chunk.request, now_s, finished)
        finished.sort(key=_order)
        self._finishing = finished.copy()
        if self.config.async_scheduling:
            self._ahead = self._schedule(last_started_s)
        for request in self._finishing:
            kv_tokens = request.total_tokens - 1
            self.pool.release(request, kv_tokens, kv_tokens)
        self._finishing.clear()
        for request in finished:
            request.last_token_s = now_s
            request.max_itl_s = max(request.max_itl_s, self._itl.since(request.span_start))
        return Outcome(finished, crossed)

    def _sample_first(self, request: Request, now_s: float, finished: list[Request]) -> None:
        """A prompt is complete: its next token is there."""
        request.generated_tokens += 1
        if request.generated_tokens == 1:
            request.first_token_s = now_s
            request.span_start = self._itl.count
        else:
            self._resume_clock(request, now_s)
        request.lag_from = self.decoding.iteration
        if request.generated_tokens == request.output_tokens:
            finished.append(request)
        else:
            self.decoding.join(request, request.total_tokens - 1)
            self.pool.answers(request, self._hashed_tokens)

    def _resume_clock(self, request: Request, now_s: float) -> None:
        """The first token after a preemption or a migration: the gap before it is an inter-token latency too."""
        request.max_itl_s = max(request.max_itl_s, now_s - request.last_token_s)
        request.span_start = self._itl.count

    def _pause_clock(self, request: Request) -> None:
        request.last_token_s = self._committed_s
        request.max_itl_s = max(request.max_itl_s, self._itl.since(request.span_start))

    def _schedule(self, now_s: float) -> Step | None:
        """The next iteration, from what had happened by ``now_s``."""
        self._move(now_s)
        decoding, pool = self.decoding, self.pool
        cap = self._longest_chunk(now_s)
        needed = decoding.blocks_next()
        budget = self.config.max_num_batched_tokens - len(decoding.requests)
        wanted = []
        for partial in self._partials:
            tokens, blocks = self._wanted(partial, min(cap, budget))
            wanted.append(tokens)
            needed += blocks
            budget -= tokens
        self._preempting = needed > pool.free
        if self._preempting:
            chunks = self._schedule_short(now_s, cap)
        else:
            pool.take(decoding.blocks_next())
            partials, self._partials = self._partials, []
            chunks = [self._compute(*each) for each in zip(partials, wanted, strict=True) if each[1]]
            # Those that migrated here may leave a prompt without tokens; vLLM's own never ask for more than there are.
            self._partials += [partial for partial, tokens in zip(partials, wanted, strict=True) if not tokens]
            self.admission_blocked = False
            if self.waiting:
                self._admit(chunks, budget, cap, now_s)
        if not chunks and not decoding.requests:
            return None
        return self._step(chunks)

    def _step(self, chunks: list[Chunk]) -> Step:
        decoding = self.decoding
        prefills = tuple([Prefill(chunk.tokens, chunk.done_tokens, chunk.ends) for chunk in chunks])
        batch = Batch(decoding.contexts_next(), decoding.context_sum + len(decoding.requests), prefills)
        iterations = 1
        unseen = self._attaching or self._detaching or (self.waiting and not self.admission_blocked)
        freed_soon = self._finishing and self.waiting
        passing = chunks or self._partials or self._preempting or self._joined
        if not (passing or unseen or freed_soon or self._max_iterations == 1):
            iterations = decoding.quiet_iterations(self.pool.free)
            if self._max_iterations is not None:
                iterations = min(iterations, self._max_iterations)
        return Step(batch, tuple(chunks), iterations)

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
            self.pool.give(reserved - blocks_for(context_tokens, self.config.block_tokens))
            self.pool.computed(request, context_tokens)
            self.pool.answers(request, self._hashed_tokens)
            self._incoming -= 1
            self._line_up(request)
            self._join(request, context_tokens)

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
        """The most prompt tokens that one request may compute in an iteration."""
        threshold = self.config.long_prefill_token_threshold
        if not threshold or (self.rules.lone_prompt_uncapped and self._alone(now_s)):
            return self.config.max_num_batched_tokens
        return threshold

    def _alone(self, now_s: float) -> bool:
        """Whether there is one request at most, running or waiting."""
        visible = (request for request in self.waiting if request.ready_s <= now_s)
        return self.running + len(list(islice(visible, 2))) <= 1

    def _wanted(self, partial: Chunk, most: int) -> tuple[int, int]:
        """The next tokens of a prompt in progress, at most so many, and the new blocks for them."""
        done, size = partial.done_tokens, self.config.block_tokens
        tokens = min(partial.request.total_tokens - done, most)
        return tokens, blocks_for(done + tokens, size) - blocks_for(done, size)

    def _compute(self, partial: Chunk, tokens: int) -> Chunk:
        """Compute the next tokens of a prompt in progress, taking their blocks."""
        request, _, done, _ = partial
        size = self.config.block_tokens
        self.pool.take(blocks_for(done + tokens, size) - blocks_for(done, size))
        ends = done + tokens == request.total_tokens
        if ends:
            self._ending += 1
        else:
            self._partials.append(Chunk(request, 0, done + tokens, False))
        # vLLM hashes a block when it is scheduled, not when it is computed: whoever hits it runs after it anyway.
        self.pool.computed(request, done + tokens)
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
            chunks.append(self._compute(Chunk(request, 0, match.tokens, False), tokens))
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
        running = sorted((*decoding.requests, *partials, *self._finishing), key=_order)
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
                victim = self._victim(running)
                place = running.index(victim)
                del running[place]
                had = served.pop(victim, 0)
                budget += had
                if place < at and (had or self.rules.victims_keep_turns):
                    at -= 1
                chunk = chunks.pop(victim, partials.get(victim))
                self._preempt(victim, chunk, served=had > 0, now_s=now_s)
            if request not in running:
                break
            served[request] = tokens
            budget -= tokens
            if request in partials:
                chunks[request] = self._compute(partials[request], tokens)
            else:
                pool.take(blocks)
            at += 1
        left = {request for request in running if request not in served}
        self._partials += [partials[request] for request in running if request in partials and request in left]
        self._partials.sort(key=lambda partial: partial.request.order)
        for request in [request for request in decoding.requests if request in left]:
            self._leave(request)
            self._sitting_out.append(request)
        return [chunks[request] for request in running if request in chunks]

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

    # Invariants.

    def violations(self) -> list[str]:
        """What of the engine's invariants does not hold."""
        found = [*self.pool.violations(), *self.decoding.violations()]
        waiting_tokens = sum(request.total_tokens for request in self.waiting)
        if self.waiting_tokens != waiting_tokens:
            found.append(f"E4: {self.waiting_tokens} waiting tokens are counted, {waiting_tokens} wait")
        if self.running + self._incoming > self.config.max_num_seqs:
            found.append(f"E5: {self.running} running and {self._incoming} coming exceed {self.config.max_num_seqs}")
        if not self.config.prefix_caching:
            held = sum(self.blocks_for(self.context_tokens(request)) for request in self.decoding.requests)
            if held > self.kv_blocks_used:
                found.append(f"E6: {held} blocks are decoded in, {self.kv_blocks_used} are taken")
        return found
