"""SGLang: an `Engine` whose prompts go first and alone.

After `python/sglang/srt/managers` of sgl-project/sglang 0.5 (`scheduler.py`: `get_next_batch_to_run`;
`schedule_policy.py`: `PrefillAdder`; `scheduler_components/recv_skipper.py`), read at 00550cd. Where it differs from
vLLM:

- An iteration computes prompts or decodes, never both: while prompts are there and fit, those that decode wait.
- A batch of prompts has up to a chunk's tokens (``max_num_batched_tokens`` is SGLang's ``chunked_prefill_size``); the
  last prompt in it may be cut, and goes on in the next.
- A prompt is admitted if its own and the running requests' answers will fit too: without a prefix cache if memory lasts
  at the end of each of them, one after the other (`add_one_req_ignore_eos`: benchmarks tell how long answers are, and
  so do traces here), with one if a share of what all may still generate is free (the *new-token ratio*, which falls
  while nothing has to be taken back).
- Out of memory, the request that has generated least is taken back, of equal ones the one with the longest prompt,
  until so many steps of decoding fit.
- Between two looks at new requests there may be several iterations of decoding (``scheduler_recv_interval``).

Overlap scheduling is asynchronous scheduling: what happens in an iteration is felt by the one after the next. Left out:
sorting the queue by the longest prefix that is cached, which is off where more than 128 wait; pages of one token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.engine.blocks import BlockPool, Match, blocks_for
from l4sim.engine.config import EngineConfig
from l4sim.engine.protocol import Chunk, Outcome, Step
from l4sim.engine.request import NO_SLOT, Request
from l4sim.engine.vllm.engine import VLLMEngine

# Their defaults, by SGLang's names of them (`environ.py`).
_CLIP_MAX_NEW_TOKENS = 4096
_INIT_NEW_TOKEN_RATIO = 0.7
_MIN_NEW_TOKEN_RATIO = _INIT_NEW_TOKEN_RATIO * 0.14
_RATIO_DECAY_STEPS = 600
_RETRACT_DECODE_STEPS = 20

_NOBODY = np.zeros(0, dtype=np.int64)


class SGLangEngine(VLLMEngine):
    """An `Engine` by the rules of SGLang; queue, blocks and accounts are kept as vLLM's engine does."""

    def __init__(
        self, config: EngineConfig, *, max_iterations: int | None = None, pool: BlockPool | None = None
    ) -> None:
        """See `l4sim.engine.protocol.EngineFactory`."""
        super().__init__(config, max_iterations=max_iterations, pool=pool)
        self._new_token_ratio = _INIT_NEW_TOKEN_RATIO
        self._unlooked = config.scheduler_recv_interval
        """Iterations of decoding since the engine looked at new requests."""
        self._received_s = 0.0
        """Until when those that had come are known."""
        self._stalled_s = 0.0
        """What those that decode have waited for prompts."""
        self._full = False
        """Whether somebody found no room, and nobody has gone since (`ScheduleBatch.batch_is_full`)."""
        self._fresh: list[tuple[Request, float]] = []
        """Requests whose prompt has ended since anybody decoded, and when."""

    # The loop.

    def commit(
        self,
        step: Step,
        now_s: float,
        *,
        iterations: int = 1,
        last_started_s: float | None = None,
        longest_s: float | None = None,
    ) -> Outcome:
        """Account for a step: of prompts, in which nobody decodes, or of decoding."""
        took_s = now_s - self._started_s if longest_s is None else longest_s
        if step.chunks:
            self._stalled_s += took_s
            self._unlooked = self.config.scheduler_recv_interval
            self._fresh += [(chunk.request, now_s) for chunk in step.chunks if chunk.ends]
            return self._gone(super().commit(step, now_s, iterations=0, last_started_s=last_started_s, longest_s=0.0))
        # In a repeated step it looked every so often, at nobody.
        self._unlooked = (self._unlooked + iterations - 1) % self.config.scheduler_recv_interval + 1
        decay = (_INIT_NEW_TOKEN_RATIO - _MIN_NEW_TOKEN_RATIO) / _RATIO_DECAY_STEPS
        self._new_token_ratio = max(self._new_token_ratio - iterations * decay, _MIN_NEW_TOKEN_RATIO)
        for request, ended_s in self._fresh:
            if request.slot != NO_SLOT:
                # It has not waited for the prompts before its own.
                request.max_itl_s = max(request.max_itl_s, now_s - ended_s)
                request.span_start = self._itl.count + 1
        self._fresh.clear()
        waited_s, self._stalled_s = took_s + self._stalled_s, 0.0
        return self._gone(
            super().commit(step, now_s, iterations=iterations, last_started_s=last_started_s, longest_s=waited_s)
        )

    def _gone(self, outcome: Outcome) -> Outcome:
        """The same; who has ended leaves room."""
        if outcome.finished:
            self._full = False
        return outcome

    def drop(self, request: Request) -> None:
        """Free the blocks of a departed request."""
        super().drop(request)
        self._full = False

    def cancel_reservation(self, blocks: int) -> None:
        """Give back what `reserve` and `reserve_more` set aside."""
        super().cancel_reservation(blocks)
        self._full = False

    def _schedule(self, now_s: float) -> Step | None:
        """The next iteration: prompts if any fit, else decoding."""
        if self._sitting_out or self._attaching or self._detaching:
            self._move(now_s)
        decoding = self.decoding
        if not decoding.requests:
            self._full = False
        if self._unlooked >= self.config.scheduler_recv_interval or not decoding.requests:
            self._unlooked, self._received_s = 0, now_s
        self._preempting = False
        self.admission_blocked = self._full and bool(self.waiting)
        chunks = self._prompts()
        if chunks:
            prefills = tuple([Prefill(chunk.tokens, chunk.done_tokens, chunk.ends) for chunk in chunks])
            return Step(Batch(_NOBODY, 0, prefills), tuple(chunks), 1)
        if not decoding.requests:
            for partial in self._partials.copy():
                # What it would need is set aside for requests that migrate here.
                self._preempt(partial.request, partial, served=True, now_s=now_s)
            return None
        if decoding.blocks_next() > self.pool.free:
            self._retract(now_s)
        self.pool.take(decoding.blocks_next())
        return self._step([])

    def _step(self, chunks: list[Chunk]) -> Step:
        """A step of decoding, which is repeated until something may change."""
        step = super()._step(chunks)
        if self._fresh or self._partials:
            return step._replace(iterations=1)
        if not self.waiting or self.config.scheduler_recv_interval == 1:
            return step
        # Behind a head that finds no room others may come: who has by the next look is known from then on.
        left = self.config.scheduler_recv_interval - self._unlooked
        if step.iterations > 1:
            return step._replace(iterations=max(min(step.iterations, left), 1))
        # Those that wait are not known yet, whatever else does not change.
        unknown = self.waiting.first(self._received_s) is None
        changing = self._finishing or self._joined or self._preempting or self._attaching or self._detaching
        if unknown and not changing and left > 1 and self._max_iterations != 1:
            return step._replace(iterations=min(self.decoding.quiet_iterations(self.pool.free), left))
        return step

    # Prompts.

    def _prompts(self) -> list[Chunk]:
        """The next batch of prompts: the one that was cut, then those that wait, as many as fit."""
        budget = self.config.max_num_batched_tokens
        chunks: list[Chunk] = []
        partials, self._partials = self._partials, []
        for partial in partials:
            tokens, blocks = self._wanted(partial, budget)
            if tokens and blocks <= self.pool.free:
                chunks.append(self._compute(partial.request, partial.done_tokens, tokens))
                budget -= tokens
            else:
                self._partials.append(partial)
        if self.waiting and not self._partials and not self._full:
            self._admit_prompts(chunks, budget)
        return chunks

    def _admit_prompts(self, chunks: list[Chunk], budget: int) -> None:
        pool, waiting = self.pool, self.waiting
        places = self.config.max_num_seqs - self.running - self._incoming
        admitted = [chunk.request for chunk in chunks]
        while budget > 0:
            request = waiting.first(self._received_s)
            if request is None:
                return
            match = pool.match(request)
            if places <= 0 or not self._fits(request, match, admitted):
                self._full = self.admission_blocked = True
                return
            total = request.total_tokens
            waiting.remove(request)
            self.waiting_tokens -= total
            pool.hold(request, match)
            if not request.has_begun:
                request.scheduled_s = self._received_s
                request.cached_tokens = match.tokens
            self._line_up(request)
            tokens = min(total - match.tokens, budget)
            chunks.append(self._compute(request, match.tokens, tokens))
            admitted.append(request)
            places -= 1
            budget -= tokens

    def _fits(self, request: Request, match: Match, admitted: Sequence[Request]) -> bool:
        """Whether memory lasts for a prompt, for its answer and for those of all that run."""
        size = self.config.block_tokens
        new_blocks = blocks_for(request.total_tokens, size) - match.blocks
        free_tokens = (self.pool.free - match.idle_blocks - new_blocks) * size
        if free_tokens < 0:
            return False
        left, occupied = self._states([*admitted, request])
        if not len(self.decoding.requests) and len(left) == 1:
            # Alone it may fill the memory: that it fits at all was asked before.
            return True
        if self.config.prefix_caching:
            running = left[: len(self.decoding.requests)]
            promised = np.minimum(running, _CLIP_MAX_NEW_TOKENS).sum() * self._new_token_ratio
            promised += np.minimum(left[len(running) :], _CLIP_MAX_NEW_TOKENS).sum()
            return bool(promised < free_tokens)
        order = np.argsort(left, kind="stable")
        left, occupied = left[order], occupied[order]
        staying = np.arange(len(left), 0, -1)
        freed = np.concatenate(([0], occupied.cumsum()[:-1]))
        return bool((free_tokens + freed - left * staying > staying).all())

    def _states(self, others: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that each request will still generate, and those that it holds: who decodes first, then others."""
        decoding = self.decoding
        left = [request.finish_at - decoding.iteration for request in decoding.requests]
        left += [request.output_tokens - request.generated_tokens for request in others]
        occupied = [decoding.context_tokens(request) for request in decoding.requests]
        occupied += [request.total_tokens for request in others]
        return np.array(left, dtype=np.int64), np.array(occupied, dtype=np.int64)

    # Short of blocks.

    def _retract(self, now_s: float) -> None:
        """Take requests back until `_RETRACT_DECODE_STEPS` steps of those that are left fit; one goes on anyway."""
        decoding, pool = self.decoding, self.pool
        while len(decoding.requests) > 1 and (
            decoding.blocks_next() > pool.free or decoding.blocks_needed(_RETRACT_DECODE_STEPS) > pool.free
        ):
            victim = min(decoding.requests, key=self._progress)
            self._preempt(victim, None, served=False, now_s=now_s)
        self._preempting, self._full = True, False
        left, _ = self._states(())
        asked = sum(request.output_tokens for request in decoding.requests)
        generated = asked - int(left.sum()) + _RETRACT_DECODE_STEPS * len(left)
        self._new_token_ratio = min(generated / asked, 1.0)

    def _progress(self, request: Request) -> tuple[int, int]:
        """The least is taken back first: it has generated least, and of equal ones has the longest prompt."""
        return request.output_tokens - (request.finish_at - self.decoding.iteration), -request.prompt_tokens
