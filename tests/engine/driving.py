"""An `Instance` driven through a trace, as the simulator drives it, with a record of what ran when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from l4sim.engine.instance import Instance
from l4sim.engine.request import Request
from tests.engine.vllm_reference import Iteration, Job, Work


@dataclass
class Record:
    """What an instance did."""

    requests: list[Request]
    iterations: list[Iteration] = field(default_factory=list)
    crossings: list[tuple[int, float]] = field(default_factory=list)
    """Request and time."""
    segments: int = 0
    """Steps taken, repetitions not counted."""


def drive(instance: Instance, jobs: Sequence[Job], iteration_s: Callable[[Sequence[Work]], float]) -> Record:
    """Serve all jobs, given in order of arrival; cuts repeated steps short at arrivals.

    ``iteration_s`` must not depend on decoding, since a step's repetitions take as long as its first.
    """
    requests = [Request(index, *job[:3], prefix_ids=job.prefix_ids) for index, job in enumerate(jobs)]
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
        started_s = now_s + (iterations - 1) * one_s
        now_s += iterations * one_s
        outcome = instance.commit(step, now_s, iterations=iterations, last_started_s=started_s, longest_s=one_s)
        record.crossings.extend((request.index, now_s) for request in outcome.crossed)
        record.segments += 1
