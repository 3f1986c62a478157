"""A whole instance beside a plain model of vLLM: the same work in the same iterations, skipped over or not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l4sim.engine.config import EngineConfig
from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.engine.vllm.versions import VERSIONS
from tests.engine.vllm.driving import Record, drive
from tests.engine.vllm.reference import Job, ReferenceScheduler, Work


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
        scheduling_policy=draw(st.sampled_from(["fcfs", "priority"])),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 3, 9])),
    )


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[EngineConfig, list[Job]]:
    """An instance with little KV memory, and requests that overload it; no two events coincide."""
    config = draw(configs())
    size = config.block_tokens
    room = config.kv_blocks * size
    jobs: list[Job] = []
    second = 0
    for index in range(draw(st.integers(1, 12))):
        second += draw(st.integers(0, 8))
        prompt = draw(st.integers(1, room * 2 // 3))
        output = draw(st.integers(1, min(40, room - prompt + 1)))
        shared = draw(st.integers(0, prompt // size))
        # What it shares is a family's, or an earlier request with a part of its answer.
        if jobs and draw(st.booleans()):
            begins = [key for run in draw(st.sampled_from(jobs)).block_keys for key in run][:shared]
        else:
            family = 10_000 * draw(st.integers(1, 3))
            begins = list(range(family, family + shared))
        own = 1000 * index + 100_000
        keys = [*begins, *range(own, own + (prompt + output) // size - len(begins))]
        named = tuple(range(key, key + 1) for key in keys) if config.prefix_caching else ()
        jobs.append(Job(second + (2 * index + 1) / 4096, prompt, output, named, draw(st.integers(0, 2))))
    return config, jobs


def run(
    scenario: tuple[EngineConfig, list[Job]],
    max_iterations: int | None,
    boundary_tokens: int | None = None,
    version: str = "vllm-0.32",
) -> tuple[VLLMEngine, Record]:
    config, jobs = scenario
    instance = VLLMEngine(config, rules=VERSIONS[version], max_iterations=max_iterations)
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
    [Job(1 / 4096, 1, 9), Job(1 + 3 / 4096, 3, 7), Job(1 + 5 / 4096, 6, 2, (range(1200, 1204),))],
)


@pytest.mark.slow
@given(scenarios(), st.sampled_from([1, 5, None]), st.sampled_from(sorted(VERSIONS)))
@example(EVICTED_WHILE_BLOCKED, None, "vllm-0.32")
@settings(max_examples=200, deadline=None)
def test_the_same_work_in_the_same_iterations_as_vllm(
    scenario: tuple[EngineConfig, list[Job]], max_iterations: int | None, version: str
) -> None:
    config, jobs = scenario
    instance, record = run(scenario, max_iterations, version=version)
    expected, iterations, blocks_used = ReferenceScheduler(config, version, iteration_s).run(jobs)
    assert record.iterations == iterations
    assert record.blocks_used == blocks_used
    for request, sequence in zip(record.requests, expected, strict=True):
        times = sequence.token_times_s
        assert request.preemptions == sequence.preemptions
        assert request.cached_tokens == sequence.cached_tokens
        assert request.scheduled_s == sequence.scheduled_s
        assert (request.first_token_s, request.last_token_s) == (times[0], times[-1])
        assert request.max_itl_s == max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    assert (instance.pool.free, instance.running, instance.waiting_tokens) == (config.kv_blocks, 0, 0)
    assert instance.violations() == []


@pytest.mark.slow
@given(scenarios(), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_skipping_over_iterations_changes_nothing(
    scenario: tuple[EngineConfig, list[Job]], boundary_tokens: int
) -> None:
    _, stepped = run(scenario, 1, boundary_tokens)
    _, skipped = run(scenario, None, boundary_tokens)
    assert skipped.iterations == stepped.iterations
    assert skipped.blocks_used == stepped.blocks_used
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
    _, record = run((config, [Job(0.0, 10, 1000)]), None)
    assert (len(record.iterations), record.segments) == (1000, 2)
