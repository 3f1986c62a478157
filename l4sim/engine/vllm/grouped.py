"""vLLM V1 where layers are of several groups: the same rules, with a table of blocks for each group.

What differs from one group is that blocks come free while a request goes on: those that its windows have passed, or
states that have been followed by others. So what a request takes and gives is settled in its turn, one request after
the other; between two changes of its tables a decoding request is not visited.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from l4sim.engine.config import EngineConfig
from l4sim.engine.decoding import DecodingSet
from l4sim.engine.protocol import Chunk, Outcome, Step
from l4sim.engine.request import NO_SLOT, Request
from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.engine.vllm.grouped_pool import GroupedPool, Hit
from l4sim.engine.vllm.scheduling import by_order
from l4sim.engine.vllm.versions import VLLM_0_32, VLLMRules
from l4sim.specs.kv_groups import KVGroup

_ANY = 1 << 30
_SOUGHT = 1 << 10
"""As many iterations are looked ahead for blocks that come free."""


def _still(entries: Iterable[tuple[int, Request]]) -> Iterator[Request]:
    """Those who have decoded since they were to be visited."""
    return (request for epoch, request in entries if request.slot != NO_SLOT and request.epoch == epoch)


class _Decoding(DecodingSet):
    """Who decodes, and in which iteration each is to be visited."""

    def __init__(self, max_num_seqs: int, block_tokens: int, tables: int) -> None:
        super().__init__(max_num_seqs, block_tokens)
        self._tables = tables
        self.most_iterations = _ANY
        """How often the next step may be repeated at most, whatever else says."""
        self._due: dict[int, list[tuple[int, Request]]] = {}

    def join(self, request: Request, context_tokens: int) -> None:
        """Let a request decode; it is visited in the next iteration."""
        super().join(request, context_tokens)
        self.visit(request, 0)

    def visit(self, request: Request, iterations: int) -> None:
        """Visit a decoding request so many iterations after the next."""
        self._due.setdefault(self.iteration + iterations, []).append((request.epoch, request))

    def due(self, iterations: int = 0) -> list[Request]:
        """Who is to be visited in the iteration so many after the next, in the order of admission; each time once."""
        return sorted(_still(self._due.pop(self.iteration + iterations, ())), key=by_order)

    def next_due(self) -> list[Request]:
        """Who is to be visited in the iteration after the next."""
        return list(_still(self._due.get(self.iteration + 1, ())))

    def most_visits(self, iterations: int) -> int:
        """How many are to be visited in the iteration so many after the next, at most."""
        return len(self._due.get(self.iteration + iterations, ()))

    def quiet_iterations(self, free_blocks: int) -> int:
        """As for one group, if all tables grow as the one with the smallest blocks and nothing comes free."""
        return min(super().quiet_iterations(free_blocks // self._tables), self.most_iterations)


class GroupedVLLMEngine(VLLMEngine):
    """An `Engine` by the rules of vLLM for models whose layers do not all keep every token."""

    def __init__(
        self, config: EngineConfig, *, rules: VLLMRules = VLLM_0_32, max_iterations: int | None = None
    ) -> None:
        """Make one engine; the arguments are those of `l4sim.engine.protocol.EngineFactory`."""
        self.blocks = GroupedPool(config)
        super().__init__(config, rules=rules, max_iterations=max_iterations, pool=self.blocks)
        self._tables = sum(group.count for group in config.kv_groups)
        self._visits = self.decoding = _Decoding(config.max_num_seqs, config.block_tokens, self._tables)
        self.decoding_requests = self.decoding.requests
        self._lag = int(config.async_scheduling)
        self._aligned = config.prefix_caching and any(group.kind == "state" for group in config.kv_groups)
        self._grown = 1
        """How many of the running step's iterations have their blocks."""
        self._ahead_of_commit = False
        self._chunks: dict[Request, int] = {}
        """Tokens of prompts in the step that was planned last."""

    # What others may ask.

    def kv_blocks_free(self, iteration: int = 1) -> int:
        """KV blocks that no request holds."""
        self._grow(iteration)
        return self.blocks.free

    def spare_blocks(self, iteration: int = 1) -> int:
        """Blocks that a newcomer may have: all that are free but those that decoding may take in the next iteration."""
        self._grow(iteration)
        return self.blocks.free - self._tables * self._visits.most_visits(iteration)

    def blocks_for(self, tokens: int) -> int:
        """KV blocks that a context takes at most while it grows to so many tokens, none of them under way."""
        longest = self.config.max_model_len
        return sum(group.most_blocks(tokens, 0, longest) for group in self.config.kv_groups)

    def tokens_for(self, blocks: int) -> int:
        """The longest context that so many blocks hold."""
        return bisect_right(range(self.config.max_model_len + 1), blocks, key=self.blocks_for) - 1

    def refusal(self, request: Request) -> str | None:
        """Why a request can never be served here; None if it can."""
        total = request.prompt_tokens + request.output_tokens
        if total > self.config.max_model_len:
            return f"prompt and output exceed max_model_len {self.config.max_model_len}"
        config = self.config
        most = [group.most_blocks(total - 1, config.in_flight_tokens, total) for group in config.kv_groups]
        if sum(most) > config.kv_blocks:
            return f"prompt and output need more than the instance's {self.config.kv_blocks} KV blocks"
        return None

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
        """Account for a step, as `VLLMEngine.commit` does."""
        self._ahead_of_commit = self.config.async_scheduling
        outcome = super().commit(step, now_s, iterations=iterations, last_started_s=last_started_s, longest_s=longest_s)
        self._ahead_of_commit = False
        return outcome

    def _grow(self, iterations: int) -> None:
        """Let the running step's repetitions up to this one take and give their blocks."""
        for ahead in range(self._grown, iterations):
            for request in self._visits.due(ahead):
                context = self.decoding.context_tokens(request) + ahead
                done = context - self._lag
                known = done + 1 if self.blocks.hashes_answers else 0
                if not self.blocks.extend(request, context + 1, done_tokens=done, known_tokens=known):
                    raise AssertionError("a step was repeated until blocks were short")
                self._visits.visit(request, ahead + self.blocks.next_change(request, context, self._lag))
        self._grown = max(self._grown, iterations)

    def _schedule(self, now_s: float) -> Step | None:
        """The next iteration, from what had happened by ``now_s``."""
        self.blocks.begin_iteration()
        under_way = self._chunks if self._ahead_of_commit else {}
        self._chunks = {}
        self._grown = 1
        self._visits.most_iterations = _ANY
        for request in self._sitting_out:
            # Its last token has come since.
            self.blocks.computed(request, request.total_tokens - 1)
        if self._sitting_out or self._attaching or self._detaching:
            self._move(now_s)
        config, decoding = self.config, self.decoding
        cap = self._longest_chunk(now_s) if config.long_prefill_token_threshold else config.max_num_batched_tokens
        due = self._visits.due()
        self._preempting = False
        budget = config.max_num_batched_tokens - len(decoding.requests)
        shares = self._shares(cap, budget)
        if shares is None or self._may_lack(due, shares):
            chunks, budget = self._in_turn(now_s, cap, due, under_way)
        else:
            budget -= sum(tokens for _, tokens in shares)
            chunks = self._together(due, shares, under_way)
        if not self._preempting:
            self.admission_blocked = False
            if self.waiting:
                self._admit(chunks, budget, cap, now_s)
        if not chunks and not decoding.requests:
            return None
        return self._step(chunks)

    def _shares(self, cap: int, budget: int) -> list[tuple[Chunk, int]] | None:
        """What each prompt in progress gets beside all that decode; None if that depends on whose turn is first."""
        partials = self._partials
        if len(partials) == 1 and partials[0].request.order == self._admitted:
            return [(partials[0], self._piece(partials[0].request, partials[0].done_tokens, min(cap, budget)))]
        shares = [(partial, self._piece(partial.request, partial.done_tokens, cap)) for partial in partials]
        return shares if sum(tokens for _, tokens in shares) <= budget else None

    def _may_lack(self, due: list[Request], shares: list[tuple[Chunk, int]]) -> bool:
        """Whether blocks may be short in this iteration, if none came free."""
        prompts = sum(tokens // self.config.block_tokens + 1 for _, tokens in shares)
        return self._tables * (len(due) + prompts) > self.blocks.free

    def _together(
        self, due: list[Request], shares: list[tuple[Chunk, int]], under_way: dict[Request, int]
    ) -> list[Chunk]:
        """The running requests' next iteration where their blocks last: only who has something to settle is visited."""
        self._partials = [partial for partial, tokens in shares if not tokens]
        given = {partial.request: (partial, tokens) for partial, tokens in shares if tokens}
        chunks = []
        for request in sorted((*due, *given), key=by_order) if given else due:
            partial, tokens = given.get(request, (None, 1))
            if not self._extend(request, partial, tokens, under_way):
                raise AssertionError("blocks were short of what was counted")
            if partial is not None:
                chunks.append(self._compute(partial.request, partial.done_tokens, tokens))
        return chunks

    def _extend(self, request: Request, partial: Chunk | None, tokens: int, under_way: dict[Request, int]) -> bool:
        """Let a running request have the blocks of its next tokens; False if they are short."""
        if partial is not None:
            context = partial.done_tokens
            done = context - under_way.get(request, 0)
            known = context + tokens
            exported = self.blocks.exported(context, known, _prompt_end(request))
        else:
            context = self.decoding.context_tokens(request)
            begun = request in under_way or request in self._joined
            paused = request in self._joined or not self._ahead_of_commit
            done = context - (0 if paused else under_way.get(request, 1))
            # What follows is hashed when somebody looks for it, or at its end.
            known = context + 1 - (self._lag and request not in self._joined)
            known = known if begun or self.blocks.hashes_answers else 0
            exported = 0
        end = context + tokens
        if not self.blocks.extend(request, end, done_tokens=done, known_tokens=known, exported=exported):
            return False
        if partial is None:
            # Until the iteration after its prompt's, more of it is under way than one token.
            change = 1 if begun else self.blocks.next_change(request, context, self._lag)
            self._visits.visit(request, change)
        return True

    def _piece(self, request: Request, done_tokens: int, most: int, parting_tokens: int | None = None) -> int:
        """The next tokens of a prompt in progress, at most so many.

        Where states are cached, an iteration ends where one is to be kept (`Scheduler._mamba_block_aligned_split`).
        """
        total = request.total_tokens
        tokens = min(total - done_tokens, most)
        if not self._aligned:
            return tokens
        prompt_end = _prompt_end(request)
        if done_tokens >= prompt_end:
            return tokens
        size = self.blocks.align_tokens
        end = done_tokens + tokens
        exported = self._exported_by(done_tokens, end, prompt_end)
        if end < prompt_end:
            config = self.config
            longest = config.long_prefill_token_threshold or config.max_num_batched_tokens
            aligned = end // size * size
            if aligned > done_tokens or size <= min(longest, config.max_num_batched_tokens):
                end = aligned
        parting = self.blocks.parting_tokens(request) if parting_tokens is None else parting_tokens
        stops = [] if exported else [(total - 1) // size * size]
        if done_tokens % size and not exported:
            stops.append((done_tokens // size + 1) * size)
        if done_tokens < parting < end:
            stops.append(done_tokens + (parting - done_tokens) // size * size)
        return max(min([stop for stop in stops if done_tokens < stop < end], default=end) - done_tokens, 0)

    def _exported_by(self, start: int, end: int, prompt_end: int) -> bool:
        """Whether the prompt's last state that others may go on from is kept by an iteration that goes on behind it."""
        size = self.blocks.align_tokens
        kept = (prompt_end - 1) // size * size
        return start + size <= kept < end and bool(self.blocks.exported(start, end, prompt_end))

    def _compute(self, request: Request, done: int, tokens: int) -> Chunk:
        """Compute the next tokens of a prompt of which ``done`` are there, and which has their blocks."""
        ends = done + tokens == request.total_tokens
        if ends:
            self._ending += 1
        else:
            self._partials.append(Chunk(request, 0, done + tokens, False))
        self._chunks[request] = tokens
        return Chunk(request, tokens, done, ends)

    def _admit(self, chunks: list[Chunk], budget: int, cap: int, now_s: float) -> None:
        """Move requests from the head of the queue into the batch while budget, places and blocks last."""
        config, blocks, waiting = self.config, self.blocks, self.waiting
        places = config.max_num_seqs - self.running - self._incoming
        while budget > 0:
            request = waiting.first(now_s)
            if request is None:
                return
            if places <= 0:
                # Behind a head that is not seen yet nothing is settled.
                self.admission_blocked = request is waiting[0]
                return
            hit = blocks.find(request)
            total = request.total_tokens
            tokens = self._piece(request, hit.tokens, min(cap, budget), hit.parting_tokens)
            lacking = self._lacking(request, hit, tokens) if tokens else 0
            if lacking is not None:
                # What decodes may free blocks: until it can be enough, nothing behind a head that is seen is settled.
                self._visits.most_iterations = self._iterations_without(lacking)
                self.admission_blocked = request is waiting[0] and self._visits.most_iterations > 1
                return
            waiting.remove(request)
            self.waiting_tokens -= total
            blocks.admit(request, hit)
            if not request.has_begun:
                request.scheduled_s = now_s
                request.cached_tokens = hit.tokens
            self._line_up(request)
            end = hit.tokens + tokens
            exported = blocks.exported(hit.tokens, end, _prompt_end(request))
            if not blocks.extend(request, end, done_tokens=hit.tokens, known_tokens=end, exported=exported):
                raise AssertionError("blocks were short of what was counted")
            chunks.append(self._compute(request, hit.tokens, tokens))
            places -= 1
            budget -= tokens

    def _lacking(self, request: Request, hit: Hit, tokens: int) -> int | None:
        """None if there is room for a newcomer's next tokens, and if that is asked for, for its whole prompt.

        Else the blocks that its whole prompt lacks, which only ever grow while others decode; 0 where others are short.
        """
        blocks, start, prompt_end = self.blocks, hit.tokens, _prompt_end(request)
        if self.config.reserve_full_prompt:
            total = request.total_tokens
            lacking = blocks.lacking(hit, total, blocks.exported(start, total, prompt_end), whole=True)
            if lacking is None or lacking > 0:
                return lacking or 0
        end = start + tokens
        lacking = blocks.lacking(hit, end, blocks.exported(start, end, prompt_end))
        return None if lacking is not None and lacking <= 0 else 0

    def _iterations_without(self, lacking: int) -> int:
        """In how many iterations what decodes frees fewer blocks than these; at least 1."""
        groups = [group for group in self.config.kv_groups if group.kind != "full"]
        if lacking <= 1 or any(group.kind == "chunk" for group in groups):
            return 1
        contexts = self.decoding.contexts_next() - 1 - self._lag
        # Of prompts that were computed just now more is passed at once.
        soon = [(request, self.decoding.context_tokens(request) - self._lag) for request in self._visits.next_due()]
        pending = sum(self.blocks.pending_passes(request, context) for request, context in soon)
        before = [_passed(group, contexts) for group in groups]

        def freed(iterations: int) -> int:
            passed = [_passed(group, contexts + iterations) - own for group, own in zip(groups, before, strict=True)]
            return pending + sum(group.count * int(own.sum()) for group, own in zip(groups, passed, strict=True))

        return bisect_left(range(1, _SOUGHT), lacking, key=freed) + 1

    def _in_turn(
        self, now_s: float, cap: int, due: list[Request], under_way: dict[Request, int]
    ) -> tuple[list[Chunk], int]:
        """The running requests' next iteration one by one, and what is left of the budget.

        In the order of admission. Whoever finds no blocks preempts until it does, or until it is its own turn to be
        preempted; who comes behind that, or finds no budget, has no share in this iteration.
        """
        decoding = self.decoding
        partials = {partial.request: partial for partial in self._partials}
        self._partials = []
        running = sorted((*decoding.requests, *partials, *self._finishing), key=by_order)
        to_visit = set(due)
        budget = self.config.max_num_batched_tokens
        chunks: dict[Request, Chunk] = {}
        served: dict[Request, int] = {}
        at = 0
        while at < len(running) and budget > 0:
            request = running[at]
            partial = partials.get(request)
            tokens = 1 if partial is None else self._piece(request, partial.done_tokens, min(cap, budget))
            if request in self._finishing or not tokens:
                at += 1
                continue
            settled = partial is None and request not in to_visit
            while not settled and request in running:
                settled = self._extend(request, partial, tokens, under_way)
                if settled:
                    break
                had, at = self._preempt_one(running, at, served, chunks, partials, now_s)
                budget += had
                self._preempting = True
            if request not in running:
                break
            served[request] = tokens
            budget -= tokens
            if partial is not None:
                chunks[request] = self._compute(partial.request, partial.done_tokens, tokens)
            at += 1
        self._leave_out([request for request in running if request not in served], partials)
        return [chunks[request] for request in running if request in chunks], budget

    def _preempt(self, request: Request, chunk: Chunk | None, *, served: bool, now_s: float) -> None:
        """Take a running request's blocks away, and what was to be computed of it in this step."""
        self._chunks.pop(request, None)
        super()._preempt(request, chunk, served=served, now_s=now_s)

    def _held_blocks(self, request: Request) -> int:
        """Blocks that a decoding request holds at least."""
        context = self.decoding.context_tokens(request)
        return sum(group.held_blocks(context) for group in self.config.kv_groups)

    def _settle(self, request: Request, reserved: int, context_tokens: int) -> None:
        """Let a request that has come with its KV hold of the reserved blocks what it needs."""
        if request.held is None:
            self.blocks.give(reserved)
            self.blocks.settle(request, context_tokens)
        self.blocks.computed(request, context_tokens)


def _prompt_end(request: Request) -> int:
    """Where what is computed of a request before it decodes ends, for states: its answer's last token left out."""
    return max(request.prompt_tokens, request.total_tokens - 1)


def _passed(group: KVGroup, contexts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`KVGroup.passed_blocks` of many contexts at once, of windows and states."""
    behind = contexts - (group.window_tokens - 1 if group.kind == "window" else 1)
    return np.maximum(behind, 0) // group.block_tokens
