"""vLLM V1's block pool and scheduler, block by block and token by token: slow and plain, for the engine to be held to.

Written from vLLM's `v1/core/block_pool.py`, `v1/core/sched/scheduler.py` and `async_scheduler.py`. It shares the
simplifications that `l4sim.engine.prefix_cache` states (hits in whole hash blocks, generated tokens found again only by
their own request, no second copy of a prompt's last block) and no code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Key = tuple[str, int, int]


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
        self.key: Key | None = None
        self.holders = 0


@dataclass(eq=False)
class Holder:
    """A request, as far as blocks are concerned."""

    index: int
    prefix_ids: tuple[int, ...]
    blocks: list[Block] = field(default_factory=list)


class ReferencePool:
    """The free queue, next block to be reused first, and the cached blocks by key."""

    def __init__(self, total: int, block_tokens: int, blocks_per_id: int = 1, *, caching: bool = True) -> None:
        self.block_tokens = block_tokens
        self._blocks_per_id = blocks_per_id
        self._caching = caching
        self._queue = deque(Block() for _ in range(total))
        self._cached: dict[Key, Block] = {}

    @property
    def free(self) -> int:
        return len(self._queue)

    def _key(self, holder: Holder, position: int) -> Key:
        hash_position, part = divmod(position, self._blocks_per_id)
        if hash_position < len(holder.prefix_ids):
            return ("shared", holder.prefix_ids[hash_position], part)
        return ("own", holder.index, position)

    def find(self, holder: Holder, tokens: int) -> list[Block]:
        """The cached blocks that lead a context of ``tokens`` tokens."""
        found = []
        for position in range(tokens // self.block_tokens):
            block = self._cached.get(self._key(holder, position))
            if block is None:
                break
            found.append(block)
        return found

    def lacks(self, holder: Holder, tokens: int, found: Sequence[Block] = ()) -> bool:
        """Whether the free blocks are too few for the holder, with what was found for it, to have ``tokens`` tokens."""
        blocks = -(-tokens // self.block_tokens) - len(holder.blocks) - len(found)
        return blocks + sum(block.holders == 0 for block in found) > self.free

    def allocate(self, holder: Holder, tokens: int, found: Sequence[Block] = ()) -> None:
        """Give the holder blocks for ``tokens`` tokens, and cache those that are full."""
        for block in found:
            if block.holders == 0:
                self._queue.remove(block)
            block.holders += 1
            holder.blocks.append(block)
        while len(holder.blocks) * self.block_tokens < tokens:
            block = self._queue.popleft()
            self._evict(block)
            block.holders = 1
            holder.blocks.append(block)
        for position in range(tokens // self.block_tokens if self._caching else 0):
            hash_end = (position // self._blocks_per_id + 1) * self._blocks_per_id
            key = self._key(holder, position)
            complete = key[0] == "own" or hash_end * self.block_tokens <= tokens
            if complete and key not in self._cached:
                holder.blocks[position].key = key
                self._cached[key] = holder.blocks[position]

    def _evict(self, block: Block) -> None:
        if block.key is None:
            return
        kind, number, _ = block.key
        parts = [(kind, number, part) for part in range(self._blocks_per_id)] if kind == "shared" else [block.key]
        for key in parts:
            self._cached.pop(key).key = None

    def release(self, holder: Holder) -> None:
        """Take the holder's blocks back, the last first."""
        for block in reversed(holder.blocks):
            block.holders -= 1
            if block.holders == 0:
                self._queue.append(block)
        holder.blocks.clear()


@dataclass(eq=False)
class Sequenced(Holder):
    """A request in the scheduler."""

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


class Work(NamedTuple):
    """One request's share of an iteration."""

    request: int
    tokens: int
    computed_tokens: int


class Iteration(NamedTuple):
    """What ran when."""

    start_s: float
    work: tuple[Work, ...]


@dataclass
class ReferenceScheduler:
    """vLLM's scheduler and its loop; ``iteration_s`` gives the time of an iteration from its work."""

    pool: ReferencePool
    max_num_seqs: int
    max_num_batched_tokens: int
    reserve_full_prompt: bool
    async_scheduling: bool
    iteration_s: Callable[[Sequence[Work]], float]

    def run(self, jobs: Sequence[Job]) -> tuple[list[Sequenced], list[Iteration]]:
        """Serve all jobs, given in order of arrival."""
        requests = [Sequenced(index, job.prefix_ids, job=job) for index, job in enumerate(jobs)]
        self.waiting: deque[Sequenced] = deque()
        self.running: list[Sequenced] = []
        arriving = deque(requests)
        in_flight: deque[list[tuple[Sequenced, Work, bool]]] = deque()
        ran: list[Iteration] = []
        now_s = 0.0
        while True:
            while arriving and arriving[0].job.arrival_s <= now_s:
                self.waiting.append(arriving.popleft())
            step = self._schedule(now_s)
            if step:
                in_flight.append(step)
                if len(in_flight) <= self.async_scheduling:
                    continue
            if in_flight:
                step = in_flight.popleft()
                work = tuple(sorted(work for _, work, _ in step))
                ran.append(Iteration(now_s, work))
                now_s += self.iteration_s(work)
                self._update(step, now_s)
            elif arriving:
                now_s = arriving[0].job.arrival_s
            else:
                assert not self.waiting
                assert not self.running
                return requests, ran

    def _schedule(self, now_s: float) -> list[tuple[Sequenced, Work, bool]]:
        budget = self.max_num_batched_tokens
        step: list[tuple[Sequenced, Work, bool]] = []
        preempted = False

        def compute(request: Sequenced, tokens: int, computed: int) -> None:
            request.computed = computed + tokens
            samples = request.computed == request.tokens + request.on_their_way
            request.on_their_way += samples
            step.append((request, Work(request.index, tokens, computed), samples))

        position = 0
        while position < len(self.running) and budget:
            request = self.running[position]
            if request.ends:
                position += 1
                continue
            tokens = min(request.tokens + request.on_their_way - request.computed, budget)
            while request in self.running and self.pool.lacks(request, request.computed + tokens):
                preempted = True
                self._preempt_last()
            if request not in self.running:
                break
            self.pool.allocate(request, request.computed + tokens)
            compute(request, tokens, request.computed)
            budget -= tokens
            position += 1
        while self.waiting and budget and not preempted and len(self.running) < self.max_num_seqs:
            request = self.waiting[0]
            found = self.pool.find(request, request.tokens)
            hit_tokens = min(len(found), (request.tokens - 1) // self.pool.block_tokens) * self.pool.block_tokens
            tokens = min(request.tokens - hit_tokens, budget)
            asked = request.tokens if self.reserve_full_prompt else hit_tokens + tokens
            if self.pool.lacks(request, asked, found):
                break
            self.running.append(self.waiting.popleft())
            if request.cached_tokens < 0:
                request.cached_tokens = hit_tokens
                request.scheduled_s = now_s
            self.pool.allocate(request, hit_tokens + tokens, found)
            compute(request, tokens, hit_tokens)
            budget -= tokens
        return step

    def _preempt_last(self) -> None:
        # Unlike vLLM, which preempts a request even when its last token is on its way.
        request = next(r for r in reversed(self.running) if not r.ends)
        self.running.remove(request)
        self.pool.release(request)
        request.computed = 0
        request.preemptions += 1
        self.waiting.appendleft(request)

    def _update(self, step: list[tuple[Sequenced, Work, bool]], now_s: float) -> None:
        for request, _, samples in step:
            if not samples:
                continue
            request.on_their_way -= 1
            request.generated += 1
            request.token_times_s.append(now_s)
            if request.generated == request.job.output_tokens:
                self.running.remove(request)
                self.pool.release(request)
