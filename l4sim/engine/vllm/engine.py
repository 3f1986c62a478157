"""vLLM V1: an `Engine` (`l4sim.engine.protocol` has its loop and what may be asked of it).

What an iteration computes is decided in `scheduling`; here is what others may ask and do, and the account of what ran.
"""

from __future__ import annotations

from collections.abc import Sequence

from l4sim.engine.blocks import CacheLog, blocks_for
from l4sim.engine.protocol import Outcome, Snapshot, Step
from l4sim.engine.request import Request
from l4sim.engine.vllm.scheduling import Scheduling, by_order


class VLLMEngine(Scheduling):
    """An `Engine` by the rules of vLLM."""

    # What others may ask.

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

    def log_cache(self) -> CacheLog:
        """Where the prefix cache notes from now on what it stores and removes."""
        self.pool.log = self.pool.log or CacheLog()
        return self.pool.log

    def blocks_for(self, tokens: int) -> int:
        """KV blocks that a context of so many tokens takes."""
        return blocks_for(tokens, self.config.block_tokens)

    def tokens_for(self, blocks: int) -> int:
        """The longest context that so many KV blocks hold."""
        return blocks * self.config.block_tokens

    @property
    def partial_tokens(self) -> int:
        """Tokens of prompts in progress that no planned iteration computes yet."""
        partials = self._partials
        return sum([partial.request.total_tokens - partial.done_tokens for partial in partials]) if partials else 0

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
            self._grow(iterations)
        finished, crossed = self.decoding.advance(iterations)
        if self._joined:
            for request in self._joined:
                self._resume_clock(request, now_s)
            self._joined.clear()
        self._ending = 0
        for chunk in step.chunks:
            if chunk.ends:
                self._sample_first(chunk.request, now_s, finished)
        if finished:
            finished.sort(key=by_order)
            self._finishing = finished.copy()
        if self.config.async_scheduling:
            self._ahead = self._schedule(last_started_s)
        if finished:
            self._end(finished, now_s)
        return Outcome(finished, crossed)

    def _end(self, finished: list[Request], now_s: float) -> None:
        """Requests have their last token."""
        for request in self._finishing:
            kv_tokens = request.total_tokens - 1
            self.pool.release(request, kv_tokens, kv_tokens)
        self._finishing.clear()
        for request in finished:
            request.last_token_s = now_s
            request.max_itl_s = max(request.max_itl_s, self._itl.since(request.span_start))

    def _grow(self, iterations: int) -> None:
        """Take what the running step's repetitions need; it has the blocks of the first."""
        blocks = self.decoding.blocks_needed(iterations) - self.decoding.blocks_next()
        if blocks:
            self.pool.take(blocks)

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

    # Invariants.

    def _held_blocks(self, request: Request) -> int:
        """Blocks that a decoding request holds at least."""
        return self.blocks_for(self.context_tokens(request))

    def violations(self) -> list[str]:
        """What of the engine's invariants does not hold."""
        found = [*self.pool.violations(), *self.decoding.violations()]
        waiting_tokens = sum(request.total_tokens for request in self.waiting)
        if self.waiting_tokens != waiting_tokens:
            found.append(f"E4: {self.waiting_tokens} waiting tokens are counted, {waiting_tokens} wait")
        if self.running + self._incoming > self.config.max_num_seqs:
            found.append(f"E5: {self.running} running and {self._incoming} coming exceed {self.config.max_num_seqs}")
        if not self.config.prefix_caching:
            held = sum(self._held_blocks(request) for request in self.decoding.requests)
            if held > self.kv_blocks_used:
                found.append(f"E6: {held} blocks are decoded in, {self.kv_blocks_used} are taken")
        return found
