"""Instances driven for tests: by hand, iteration by iteration, or through a trace as the simulator does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from l4sim.engine.config import EngineConfig
from l4sim.engine.protocol import Outcome
from l4sim.engine.request import Request
from l4sim.engine.vllm.engine import VLLMEngine
from tests.engine.vllm.reference import Iteration, Job, Work


@dataclass
class Record:
    """What an instance did."""

    requests: list[Request]
    iterations: list[Iteration] = field(default_factory=list)
    blocks_used: list[int] = field(default_factory=list)
    """KV blocks held in each iteration."""
    crossings: list[tuple[int, float]] = field(default_factory=list)
    """Request and time."""
    segments: int = 0
    """Steps taken, repetitions not counted."""


def drive(instance: VLLMEngine, jobs: Sequence[Job], iteration_s: Callable[[Sequence[Work]], float]) -> Record:
    """Serve all jobs, given in order of arrival; cuts repeated steps short at arrivals.

    ``iteration_s`` must not depend on decoding, since a step's repetitions take as long as its first.
    """
    requests = [
        Request(index, *job[:3], block_keys=job.block_keys, priority=job.priority) for index, job in enumerate(jobs)
    ]
    record = Record(requests)
    arriving = deque(requests)
    now_s = 0.0
    while True:
        while arriving and arriving[0].arrival_s <= now_s:
            instance.add(arriving.popleft(), now_s)
        step = instance.plan(now_s)
        if step is None:
            if not arriving:
                return record
            now_s = arriving[0].arrival_s
            continue
        decoding = [(r.index, instance.decoding.context_tokens(r)) for r in instance.decoding.requests]
        chunks = [Work(chunk.request.index, chunk.tokens, chunk.done_tokens) for chunk in step.chunks]
        work = [*chunks, *(Work(index, 1, context) for index, context in decoding)]
        one_s = iteration_s(work)
        iterations = step.iterations
        while arriving and arriving[0].arrival_s < now_s + iterations * one_s:
            request = arriving.popleft()
            instance.add(request, request.arrival_s)
            if not instance.admission_blocked:
                under_way = int((request.arrival_s - now_s) / one_s) + 1
                iterations = min(iterations, under_way + instance.config.async_scheduling)
        for done in range(iterations):
            work = [*chunks, *(Work(index, 1, context + done) for index, context in decoding)]
            record.iterations.append(Iteration(now_s + done * one_s, tuple(sorted(work))))
            record.blocks_used.append(instance.kv_blocks_total - instance.kv_blocks_free(done + 1))
        started_s = now_s + (iterations - 1) * one_s
        now_s += iterations * one_s
        outcome = instance.commit(step, now_s, iterations=iterations, last_started_s=started_s, longest_s=one_s)
        record.crossings.extend((request.index, now_s) for request in outcome.crossed)
        record.segments += 1


def instance_with(**options: Any) -> VLLMEngine:
    """One step at a time; blocks of 4 tokens, synchronous and without a prefix cache unless told otherwise."""
    plain = {"kv_blocks": 100, "max_model_len": 1000, "max_num_seqs": 8, "max_num_batched_tokens": 64}
    modes = {"block_tokens": 4, "prefix_caching": False, "async_scheduling": False}
    return VLLMEngine(EngineConfig(**{**plain, **modes, **options}), max_iterations=1)


class Driver:
    """Runs iterations one by one and keeps, for each, who decoded and which prompt tokens were computed."""

    def __init__(self, instance: VLLMEngine) -> None:
        self.instance = instance
        self.now_s = 0.0
        self.requests: list[Request] = []
        self.ran: list[tuple[list[int], dict[int, int]]] = []

    def add(
        self, prompt_tokens: int, output_tokens: int, *shared_keys: int, at_s: float | None = None, priority: int = 0
    ) -> Request:
        """Send a request; ``shared_keys`` name its first full blocks, the others are its own."""
        time_s = self.now_s if at_s is None else at_s
        index = len(self.requests)
        own = (prompt_tokens + output_tokens) // self.instance.config.block_tokens - len(shared_keys)
        keys = (*(range(key, key + 1) for key in shared_keys), range(1000 * (index + 1), 1000 * (index + 1) + own))
        request = Request(index, time_s, prompt_tokens, output_tokens, block_keys=keys, priority=priority)
        self.requests.append(request)
        self.instance.add(request, time_s)
        return request

    def start(self) -> None:
        """Begin an iteration; what is done to the instance then happens while it runs."""
        step = self.instance.plan(self.now_s)
        assert step is not None
        self._step = step
        decoding = sorted(request.index for request in self.instance.decoding.requests)
        self.ran.append((decoding, {chunk.request.index: chunk.tokens for chunk in step.chunks}))

    def end(self, seconds: float = 1.0) -> Outcome:
        self.now_s += seconds
        return self.instance.commit(self._step, self.now_s)

    def run(self, iterations: int = 1, seconds: float = 1.0) -> Outcome:
        for _ in range(iterations):
            self.start()
            outcome = self.end(seconds)
        return outcome

    def finish(self) -> None:
        """Run until nothing is left to do."""
        while self.instance.running or self.instance.waiting:
            self.run()
