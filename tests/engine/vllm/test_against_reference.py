"""A whole instance beside a plain model of vLLM: the same work in the same iterations, skipped over or not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l4sim.engine.config import EngineConfig
from l4sim.engine.vllm.engine import VLLMEngine
from tests.engine.vllm.driving import Record, drive
from tests.engine.vllm.reference import Job, ReferencePool, ReferenceScheduler, Work


def iteration_s(work: Sequence[Work]) -> float:
    """A second, and more for prompts; binary fractions, so that sums are exact."""
    return 1.0 + sum(share.tokens for share in work if share.tokens > 1) / 64


@st.composite
def configs(draw: st.DrawFn) -> EngineConfig:
    max_num_seqs = draw(st.integers(1, 6))
    return EngineConfig(
        kv_blocks=draw(st.integers(8, 30)),
        max_model_len=1000,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=draw(st.integers(max_num_seqs, 40)),
        block_tokens=draw(st.sampled_from([2, 4])),
        prefix_caching=draw(st.booleans()),
        reserve_full_prompt=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
    )


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[EngineConfig, int, list[Job]]:
    """An instance with little KV memory, its hash block size, and requests that overload it; no two events coincide."""
    config = draw(configs())
    hash_tokens = config.block_tokens * draw(st.integers(1, 2))
    room = config.kv_blocks * config.block_tokens
    jobs = []
    second = 0
    for index in range(draw(st.integers(1, 12))):
        second += draw(st.integers(0, 8))
        prompt = draw(st.integers(1, room * 2 // 3))
        output = draw(st.integers(1, min(40, room - prompt + 1)))
        full = prompt // hash_tokens if config.prefix_caching else 0
        family, shared = draw(st.integers(0, 2)), draw(st.integers(0, full))
        ids = tuple(100 * family + at if at < shared else 1000 + 100 * index + at for at in range(full))
        jobs.append(Job(second + (2 * index + 1) / 4096, prompt, output, ids))
    return config, hash_tokens, jobs


def run(
    scenario: tuple[EngineConfig, int, list[Job]], max_iterations: int | None, boundary_tokens: int | None = None
) -> tuple[VLLMEngine, Record]:
    config, hash_tokens, jobs = scenario
    instance = VLLMEngine(config, hash_block_tokens=hash_tokens, max_iterations=max_iterations)
    instance.decoding.watch(boundary_tokens)
    return instance, drive(instance, jobs, iteration_s)


# A head without reservation that is blocked until one of its cached blocks is evicted.
EVICTED_WHILE_BLOCKED = (
    EngineConfig(
        kv_blocks=11,
        max_model_len=1000,
        max_num_seqs=3,
        max_num_batched_tokens=4,
        block_tokens=2,
        reserve_full_prompt=False,
        async_scheduling=False,
    ),
    4,
    [Job(1 / 4096, 1, 9), Job(1 + 3 / 4096, 3, 7), Job(1 + 5 / 4096, 6, 2, (1200,))],
)


@pytest.mark.slow
@given(scenarios(), st.sampled_from([1, 5, None]))
@example(EVICTED_WHILE_BLOCKED, None)
@settings(max_examples=200, deadline=None)
def test_the_same_work_in_the_same_iterations_as_vllm(
    scenario: tuple[EngineConfig, int, list[Job]], max_iterations: int | None
) -> None:
    config, hash_tokens, jobs = scenario
    instance, record = run(scenario, max_iterations)
    pool = ReferencePool(
        config.kv_blocks, config.block_tokens, hash_tokens // config.block_tokens, caching=config.prefix_caching
    )
    scheduler = ReferenceScheduler(
        pool,
        config.max_num_seqs,
        config.max_num_batched_tokens,
        config.reserve_full_prompt,
        config.async_scheduling,
        iteration_s,
    )
    expected, iterations = scheduler.run(jobs)
    assert record.iterations == iterations
    for request, sequence in zip(record.requests, expected, strict=True):
        times = sequence.token_times_s
        assert request.preemptions == sequence.preemptions
        assert request.cached_tokens == sequence.cached_tokens
        assert request.scheduled_s == sequence.scheduled_s
        assert (request.first_token_s, request.last_token_s) == (times[0], times[-1])
        assert request.max_itl_s == max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    assert (instance.pool.free, instance.running, instance.waiting_tokens) == (config.kv_blocks, 0, 0)


@pytest.mark.slow
@given(scenarios(), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_skipping_over_iterations_changes_nothing(
    scenario: tuple[EngineConfig, int, list[Job]], boundary_tokens: int
) -> None:
    _, stepped = run(scenario, 1, boundary_tokens)
    _, skipped = run(scenario, None, boundary_tokens)
    assert skipped.iterations == stepped.iterations
    assert skipped.crossings == stepped.crossings
    assert skipped.segments <= stepped.segments == len(stepped.iterations)
    for one, other in zip(stepped.requests, skipped.requests, strict=True):
        for name in ("scheduled_s", "first_token_s", "last_token_s", "max_itl_s", "preemptions", "cached_tokens"):
            assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_a_lone_answer_takes_two_steps(async_scheduling: bool) -> None:
    # The prompt, then 999 decode iterations at once; asynchronously the step behind the prompt was planned before it
    # ended, yet by then the batch is known as well.
    config = EngineConfig(kv_blocks=100, max_model_len=4096, async_scheduling=async_scheduling)
    _, record = run((config, 16, [Job(0.0, 10, 1000)]), None)
    assert (len(record.iterations), record.segments) == (1000, 2)
