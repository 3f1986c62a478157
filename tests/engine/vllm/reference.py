"""vLLM V1's block pool and scheduler, block by block and token by token: slow and plain, for the engine to be held to.

Written from vLLM's `v1/core/block_pool.py`, `v1/core/sched/scheduler.py` and `async_scheduler.py`, and sharing no code
with the engine. Where vLLM itself is at hand, `tests_vllm` holds the engine to that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from l4sim.engine.config import EngineConfig


class Job(NamedTuple):
    """A request as a trace tells it."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    block_keys: tuple[range, ...] = ()
    priority: int = 0


class Block:
    """One KV block."""

    def __init__(self) -> None:
        self.key: int | None = None
        self.holders = 0


@dataclass(eq=False)
class Holder:
    """A request, as far as blocks are concerned."""

    keys: tuple[int, ...]
    """What its full blocks hold."""
    blocks: list[Block] = field(default_factory=list)


class ReferencePool:
    """The free queue, next block to be reused first, and the cached blocks by key, the first to be cached in front."""

    def __init__(self, total: int, block_tokens: int, *, unhashed_first: bool) -> None:
        self.block_tokens = block_tokens
        self._unhashed_first = unhashed_first
        self._queue = deque(Block() for _ in range(total))
        self._cached: dict[int, list[Block]] = {}

    @property
    def free(self) -> int:
        return len(self._queue)

    def find(self, holder: Holder, tokens: int) -> list[Block]:
        """The cached blocks that lead a context of ``tokens`` tokens, of which the last must be computed."""
        found = []
        for key in holder.keys[: (tokens - 1) // self.block_tokens]:
            if key not in self._cached:
                break
            found.append(self._cached[key][0])
        return found

    def lacks(self, holder: Holder, tokens: int, found: Sequence[Block] = ()) -> bool:
        """Whether the free blocks are too few for the holder, with what was found for it, to have ``tokens`` tokens."""
        blocks = -(-tokens // self.block_tokens) - len(holder.blocks) - len(found)
        return blocks + sum(block.holders == 0 for block in found) > self.free

    def allocate(self, holder: Holder, tokens: int, found: Sequence[Block] = ()) -> None:
        """Give the holder blocks for ``tokens`` tokens."""
        for block in found:
            if block.holders == 0:
                self._queue.remove(block)
            block.holders += 1
            holder.blocks.append(block)
        while len(holder.blocks) * self.block_tokens < tokens:
            block = self._queue.popleft()
            if block.key is not None:
                self._cached[block.key].remove(block)
                if not self._cached[block.key]:
                    del self._cached[block.key]
                block.key = None
            block.holders = 1
            holder.blocks.append(block)

    def cache(self, holder: Holder, tokens: int) -> None:
        """Let the blocks that are full with ``tokens`` tokens be found."""
        full = tokens // self.block_tokens
        for block, key in zip(holder.blocks[:full], holder.keys[:full], strict=False):
            if block.key is None:
                block.key = key
                self._cached.setdefault(key, []).append(block)

    def release(self, holder: Holder) -> None:
        """Take the holder's blocks back, the last first."""
        first, last = [], []
        for block in reversed(holder.blocks):
            block.holders -= 1
            if block.holders == 0:
                (first if block.key is None and self._unhashed_first else last).append(block)
        self._queue.extendleft(reversed(first))
        self._queue.extend(last)
        holder.blocks.clear()


@dataclass(eq=False)
class Sequenced(Holder):
    """A request in the scheduler."""

    index: int = field(kw_only=True)
    job: Job = field(kw_only=True)
    generated: int = 0
    on_their_way: int = 0
    """Tokens that a scheduled iteration is yet to bring (vLLM's output placeholders)."""
    computed: int = 0
    preemptions: int = 0
    cached_tokens: int = -1
    scheduled_s: float = -1.0
    token_times_s: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.job.prompt_tokens + self.generated

    @property
    def ends(self) -> bool:
        """Whether the last token is on its way."""
        return self.generated + self.on_their_way == self.job.output_tokens

    @property
    def urgency(self) -> tuple[int, float]:
        return self.job.priority, self.job.arrival_s


class Work(NamedTuple):
    """One request's share of an iteration."""

    request: int
    tokens: int
    computed_tokens: int


class Iteration(NamedTuple):
    """What ran when."""

    start_s: float
    work: tuple[Work, ...]


class Share(NamedTuple):
    """A request's part in an iteration that is scheduled."""

    request: Sequenced
    work: Work
    samples: bool
    life: int
    """Preemptions of the request before it."""


@dataclass
class ReferenceScheduler:
    """vLLM's scheduler and its loop; ``iteration_s`` gives the time of an iteration from its work."""

    config: EngineConfig
    version: str
    iteration_s: Callable[[Sequence[Work]], float]

    def run(self, jobs: Sequence[Job]) -> tuple[list[Sequenced], list[Iteration], list[int]]:
        """Serve all jobs, given in order of arrival; returns them, the iterations, and the blocks used in each."""
        config = self.config
        self.pool = ReferencePool(config.kv_blocks, config.block_tokens, unhashed_first=self.version != "vllm-0.19")
        requests = [Sequenced(tuple(chain(*job.block_keys)), index=at, job=job) for at, job in enumerate(jobs)]
        self.waiting: list[Sequenced] = []
        self.running: list[Sequenced] = []
        arriving = deque(requests)
        in_flight: deque[list[Share]] = deque()
        ran: list[Iteration] = []
        used: dict[int, int] = {}
        scheduled = 0
        now_s = 0.0
        while True:
            while arriving and arriving[0].job.arrival_s <= now_s:
                self.waiting.append(arriving.popleft())
            step = self._schedule(now_s)
            if step:
                scheduled += 1
                used[scheduled] = config.kv_blocks - self.pool.free
                in_flight.append(step)
                if len(in_flight) <= config.async_scheduling:
                    continue
            if in_flight:
                step = in_flight.popleft()
                work = tuple(sorted(share.work for share in step))
                ran.append(Iteration(now_s, work))
                now_s += self.iteration_s(work)
                self._update(step, now_s)
                if in_flight:
                    used[scheduled] = config.kv_blocks - self.pool.free
            elif self.running or self.waiting:
                assert self.preempted, "requests wait, and nothing is to come that could let them in"
            elif arriving:
                now_s = arriving[0].job.arrival_s
            else:
                return requests, ran, list(used.values())

    def _schedule(self, now_s: float) -> list[Share]:
        self.preempted = False
        self._budget = self.config.max_num_batched_tokens
        self._shares: dict[Sequenced, int] = {}
        threshold = self.config.long_prefill_token_threshold
        if self.version != "vllm-0.19" and len(self.running) + len(self.waiting) <= 1:
            threshold = 0
        self._cap = threshold or self._budget
        self._schedule_running()
        if not self.preempted:
            self._schedule_waiting(now_s)
        step = []
        for request, tokens in self._shares.items():
            work = Work(request.index, tokens, request.computed)
            request.computed += tokens
            samples = request.computed == request.tokens + request.on_their_way
            step.append(Share(request, work, samples, request.preemptions))
            request.on_their_way += samples
        return step

    def _schedule_running(self) -> None:
        position = 0
        while position < len(self.running) and self._budget:
            request = self.running[position]
            if request.ends:
                position += 1
                continue
            tokens = min(request.tokens + request.on_their_way - request.computed, self._cap, self._budget)
            while request in self.running and self.pool.lacks(request, request.computed + tokens):
                position -= self._preempt_one(position)
            if request not in self.running:
                break
            self._give(request, tokens)
            position += 1

    def _schedule_waiting(self, now_s: float) -> None:
        while self.waiting and self._budget and len(self.running) < self.config.max_num_seqs:
            request = self.waiting[0]
            if self.config.scheduling_policy == "priority":
                request = min(self.waiting, key=lambda waiting: waiting.urgency)
            found = self.pool.find(request, request.tokens)
            hit_tokens = len(found) * self.pool.block_tokens
            tokens = min(request.tokens - hit_tokens, self._cap, self._budget)
            asked = request.tokens if self.config.reserve_full_prompt else hit_tokens + tokens
            if self.pool.lacks(request, asked, found):
                break
            self.waiting.remove(request)
            self.running.append(request)
            if request.cached_tokens < 0:
                request.cached_tokens = hit_tokens
                request.scheduled_s = now_s
            request.computed = hit_tokens
            self._give(request, tokens, found)

    def _give(self, request: Sequenced, tokens: int, found: Sequence[Block] = ()) -> None:
        """Let a request compute so many tokens more; what it has is found from here on, as far as it is known."""
        self.pool.allocate(request, request.computed + tokens, found)
        if self.config.prefix_caching:
            self.pool.cache(request, min(request.computed + tokens, request.tokens))
        self._shares[request] = tokens
        self._budget -= tokens

    def _preempt_one(self, position: int) -> bool:
        """Preempt a request; returns whether those behind it move up to before ``position``."""
        victim = self.running[-1]
        if self.config.scheduling_policy == "priority":
            victim = max(self.running, key=lambda running: running.urgency)
        before = self.running.index(victim) < position
        self.running.remove(victim)
        had = self._shares.pop(victim, 0)
        self._budget += had
        self.pool.release(victim)
        victim.computed = victim.on_their_way = 0
        victim.preemptions += 1
        self.waiting.insert(0, victim)
        self.preempted = True
        return had > 0 if self.version == "vllm-0.19" else before

    def _update(self, step: list[Share], now_s: float) -> None:
        for request, _, samples, life in step:
            if not samples:
                continue
            request.generated += 1
            request.token_times_s.append(now_s)
            lives = life == request.preemptions
            request.on_their_way -= lives
            if lives and self.config.prefix_caching:
                self.pool.cache(request, request.computed - request.on_their_way)
            if request.generated == request.job.output_tokens:
                (self.running if lives else self.waiting).remove(request)
                self.pool.release(request)
