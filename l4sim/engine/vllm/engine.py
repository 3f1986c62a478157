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

from l4sim.batch import Batch, Prefill
from l4sim.engine.blocks import BlockPool, blocks_for
from l4sim.engine.config import EngineConfig
from l4sim.engine.decoding import DecodingSet
from l4sim.engine.latency import LongestSince
from l4sim.engine.protocol import Chunk, Outcome, Snapshot, Step
from l4sim.engine.request import Request
from l4sim.engine.vllm.prefix_cache import PrefixCachingPool


class VLLMEngine:
    """An `Engine` by the rules of vLLM 0.19."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        hash_block_tokens: int | None = None,
        max_iterations: int | None = None,
        pool: BlockPool | None = None,
    ) -> None:
        """Make one engine; the arguments are those of `l4sim.engine.protocol.EngineFactory`."""
        self.config = config
        self.decoding = DecodingSet(config.max_num_seqs, config.block_tokens)
        self.decoding_requests: Sequence[Request] = self.decoding.requests
        if pool is not None:
            self.pool = pool
        elif config.prefix_caching:
            self.pool = PrefixCachingPool(
                config.kv_blocks, config.block_tokens, hash_block_tokens or config.block_tokens
            )
        else:
            self.pool = BlockPool(config.kv_blocks, config.block_tokens)
        self.waiting: deque[Request] = deque()
        self.waiting_tokens = 0
        self.admission_blocked = False
        self.departed: list[Request] = []
        self.preempted: list[Request] = []
        self._max_iterations = max_iterations
        self._partial: Chunk | None = None
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
        prompts = self._ending + (self._partial is not None)
        return len(self.decoding.requests) + prompts + len(self._finishing) + self._away

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
        """Tokens of the prompt in progress that no planned iteration computes yet."""
        partial = self._partial
        return 0 if partial is None else partial.request.total_tokens - partial.done_tokens

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
        self.pool.release(request, request.total_tokens - 1, resumable=False)

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
        partial = () if self._partial is None else (self._partial,)
        for chunk in (*chunks, *partial):
            held[chunk.request.index] = chunk.request
        for request in (*self.departed, *(request for _, request, _ in self._attaching)):
            held[request.index] = request
        for request in held.values():
            # As a preemption does, a death makes it start over.
            request.preemptions += 1
        for request in (*held.values(), *self.waiting):
            request.held_ids.clear()
            request.own_blocks_key = 0
        return [*held.values(), *self.waiting]

    # The loop.

    def plan(self, now_s: float) -> Step | None:
        """What to run now; None if there is nothing to do."""
        step, self._ahead = self._ahead, None
        if step is None:
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
        self._finishing = finished
        if self.config.async_scheduling:
            self._ahead = self._schedule(last_started_s)
        self._finishing = []
        for request in finished:
            request.last_token_s = now_s
            request.max_itl_s = max(request.max_itl_s, self._itl.since(request.span_start))
            self.pool.release(request, request.total_tokens - 1, resumable=False)
        return Outcome(finished, crossed)

    def _sample_first(self, request: Request, now_s: float, finished: list[Request]) -> None:
        """A prompt is complete: its next token is there."""
        request.generated_tokens += 1
        if request.generated_tokens == 1:
            request.first_token_s = now_s
            request.span_start = self._itl.count
        else:
            self._resume_clock(request, now_s)
        if request.generated_tokens == request.output_tokens:
            finished.append(request)
        else:
            self.decoding.join(request, request.total_tokens - 1)

    def _resume_clock(self, request: Request, now_s: float) -> None:
        """The first token after a preemption or a migration: the gap before it is an inter-token latency too."""
        request.max_itl_s = max(request.max_itl_s, now_s - request.last_token_s)
        request.span_start = self._itl.count

    def _pause_clock(self, request: Request) -> None:
        request.last_token_s = self._committed_s
        request.max_itl_s = max(request.max_itl_s, self._itl.since(request.span_start))

    def _schedule(self, now_s: float) -> Step | None:
        """The next iteration, from what had happened by ``now_s``."""
        if self._attaching or self._detaching:
            self._move(now_s)
        decoding, pool = self.decoding, self.pool
        needed = decoding.blocks_next()
        preempted = False
        while needed > pool.free:
            preempted = True
            self._preempt_latest(now_s)
            needed = decoding.blocks_next()
        if needed:
            pool.take(needed)
        budget = self.config.max_num_batched_tokens - len(decoding.requests)
        chunks: list[Chunk] = []
        if self._partial is not None:
            chunk = self._continue_prompt(self._partial, budget, now_s)
            if chunk is None:
                preempted = True
            else:
                chunks.append(chunk)
                budget -= chunk.tokens
        if not preempted:
            self.admission_blocked = False
            if self.waiting:
                self._admit(chunks, budget, now_s)
        if not chunks and not len(decoding.requests):
            if preempted and not self._finishing:
                # An engine with an empty batch goes round again at once; its queue's head is the one just preempted.
                return self._schedule(now_s)
            return None
        return self._step(chunks, preempted)

    def _step(self, chunks: list[Chunk], preempted: bool) -> Step:
        decoding = self.decoding
        prefills = tuple([Prefill(chunk.tokens, chunk.done_tokens, chunk.ends) for chunk in chunks])
        batch = Batch(decoding.contexts_next(), decoding.context_sum + len(decoding.requests), prefills)
        iterations = 1
        unseen = self._attaching or self._detaching or (self.waiting and not self.admission_blocked)
        freed_soon = self._finishing and self.waiting
        if not (chunks or preempted or unseen or freed_soon or self._joined or self._max_iterations == 1):
            iterations = decoding.quiet_iterations(self.pool.free)
            if self._max_iterations is not None:
                iterations = min(iterations, self._max_iterations)
        return Step(batch, tuple(chunks), iterations)

    def _move(self, now_s: float) -> None:
        """Let migrating requests out of the batch and into it."""
        while self._detaching and self._detaching[0][0] <= now_s:
            _, request = self._detaching.popleft()
            if self.decoding.find(request.index) is request:
                self.decoding.leave(request)
                self._pause_clock(request)
                self._away += 1
                self.departed.append(request)
        while self._attaching and self._attaching[0][0] <= now_s:
            _, request, reserved = self._attaching.popleft()
            context_tokens = request.total_tokens - 1
            self.pool.give(reserved - blocks_for(context_tokens, self.config.block_tokens))
            self._incoming -= 1
            self.decoding.join(request, context_tokens)
            self._joined.append(request)

    def _preempt_latest(self, now_s: float) -> None:
        if self._partial is not None:
            request, done = self._partial.request, self._partial.done_tokens
            self._partial = None
        else:
            request = self.decoding.latest()
            self.decoding.leave(request)
            if request in self._joined:
                self._joined.remove(request)
            else:
                self._pause_clock(request)
            done = request.total_tokens - 1
        self.pool.release(request, done, resumable=True)
        request.preemptions += 1
        self.preempted.append(request)
        request.ready_s = now_s
        self.waiting.appendleft(request)
        self.waiting_tokens += request.total_tokens

    def _continue_prompt(self, partial: Chunk, budget: int, now_s: float) -> Chunk | None:
        """The next chunk of the prompt that is partly done; None if it was preempted for want of blocks."""
        request, done = partial.request, partial.done_tokens
        tokens = min(request.total_tokens - done, budget)
        size = self.config.block_tokens
        blocks = blocks_for(done + tokens, size) - blocks_for(done, size)
        if blocks > self.pool.free:
            self._preempt_latest(now_s)
            return None
        return self._compute(request, tokens, done, blocks)

    def _compute(self, request: Request, tokens: int, done: int, blocks: int) -> Chunk:
        self.pool.take(blocks)
        ends = done + tokens == request.total_tokens
        self._ending += ends
        self._partial = None if ends else Chunk(request, 0, done + tokens, False)
        # vLLM shares a block when it is scheduled, not when it is computed: whoever hits it runs after it anyway.
        self.pool.computed(request, done + tokens)
        return Chunk(request, tokens, done, ends)

    def _admit(self, chunks: list[Chunk], budget: int, now_s: float) -> None:
        """Move requests from the head of the queue into the batch while budget, places and blocks last."""
        config, pool, waiting = self.config, self.pool, self.waiting
        places = config.max_num_seqs - self.running - self._incoming
        while waiting and budget > 0:
            request = waiting[0]
            if request.ready_s > now_s:
                return
            if places <= 0:
                self.admission_blocked = True
                return
            match = pool.match(request)
            total = request.total_tokens
            tokens = min(total - match.tokens, budget)
            asked = total if config.reserve_full_prompt else match.tokens + tokens
            if blocks_for(asked, config.block_tokens) - match.blocks > pool.free - match.idle_blocks:
                # Without reservation, a head whose cached blocks are evicted asks for a shorter chunk's blocks only.
                self.admission_blocked = config.reserve_full_prompt or not match.idle_blocks
                return
            waiting.popleft()
            self.waiting_tokens -= total
            pool.hold(request, match)
            if request.scheduled_s != request.scheduled_s:  # NaN: not scheduled before
                request.scheduled_s = now_s
                request.cached_tokens = match.tokens
            blocks = blocks_for(match.tokens + tokens, config.block_tokens) - match.blocks
            chunks.append(self._compute(request, tokens, match.tokens, blocks))
            places -= 1
            budget -= tokens

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
