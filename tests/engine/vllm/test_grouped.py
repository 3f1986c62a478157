"""Instances whose layers are of several groups: what windows and states hold, free and let be found.

Held to vLLM's own scheduler by `tests_vllm/test_groups.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4sim.engine.config import EngineConfig
from l4sim.engine.request import Request
from l4sim.engine.rules import engine_named
from l4sim.engine.vllm.grouped import GroupedVLLMEngine
from l4sim.errors import InputError
from l4sim.specs.kv_groups import KVGroup
from tests.engine.vllm.driving import Driver, drive
from tests.engine.vllm.reference import Job
from tests.engine.vllm.test_against_reference import iteration_s

HALF = (KVGroup("window", 4, 8), KVGroup("full", 4))
"""As many layers with windows of 8 tokens as without."""
STATES = (KVGroup("state", 4, count=3), KVGroup("full", 4))


def driver(groups: tuple[KVGroup, ...], **options: Any) -> Driver:
    plain = {"kv_blocks": 100, "max_model_len": 1000, "max_num_seqs": 8, "max_num_batched_tokens": 64}
    modes = {"block_tokens": 4, "prefix_caching": False, "async_scheduling": False}
    config = EngineConfig(**{**plain, **modes, **options}, kv_groups=groups)
    return Driver(GroupedVLLMEngine(config, max_iterations=1))


def used(run: Driver) -> int:
    return run.instance.kv_blocks_used


def test_a_window_frees_blocks_once_it_has_passed_them() -> None:
    run = driver(HALF)
    run.add(16, 20)
    run.run()
    # The prompt is computed as a whole, so nothing has been passed before.
    assert used(run) == 4 + 4
    run.run()
    # The 17th token sees the 8 up to itself: two blocks and its own. The full layers have 5.
    assert used(run) == 3 + 5
    run.run(12)
    assert used(run) == 3 + 8


def test_asynchronously_what_the_token_under_way_looks_at_stays() -> None:
    run = driver(HALF, async_scheduling=True)
    run.add(16, 20)
    run.run(2)
    # The iteration behind the prompt's was planned while that ran; the next has been planned by now.
    assert used(run) == 3 + 5


def test_each_of_several_groups_has_a_table() -> None:
    run = driver((KVGroup("window", 4, 8, count=5), KVGroup("full", 8)))
    run.add(16, 20)
    run.run(2)
    assert used(run) == 5 * 3 + 3


def test_a_state_takes_one_block_however_long_the_context() -> None:
    run = driver((KVGroup("state", 1000, count=3), KVGroup("full", 4)))
    run.add(16, 20)
    run.run()
    assert used(run) == 3 + 4


def test_admission_takes_what_a_window_holds_at_most() -> None:
    # 127 tokens need 32 blocks of full layers. Windows hold 7 tokens beside the 8 under way, in one block more.
    room = 32 + 4 + 1
    for blocks, ran in ((room, True), (room - 1, False)):
        run = driver(HALF, kv_blocks=blocks, max_num_batched_tokens=8)
        request = Request(0, 0.0, 127, 1)
        assert (run.instance.refusal(request) is None) == ran
        if ran:
            run.add(127, 1)
            run.run(16)
            assert run.instance.idle


def test_where_blocks_are_short_the_latest_is_preempted() -> None:
    run = driver(HALF, kv_blocks=16)
    first, second = run.add(15, 20), run.add(12, 20)
    run.finish()
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert used(run) == 0


def test_a_window_is_found_where_a_prompt_ended() -> None:
    run = driver(HALF, prefix_caching=True)
    run.add(17, 1, 1, 2, 3, 4)
    run.run()
    # Sent again, its first 16 tokens need not be computed; the window's last two blocks are held for it.
    again = run.add(17, 10, 1, 2, 3, 4)
    run.run()
    assert again.cached_tokens == 16
    assert used(run) == 3 + 5


def test_in_the_middle_of_a_prompt_no_window_is_found_until_two_were_seen_to_part_there() -> None:
    run = driver(HALF, prefix_caching=True)
    run.add(40, 1, 1, 2, 3, 4)
    run.run()
    # Full layers have 16 tokens in common, windows of the tokens before the prompt's end alone.
    second, third = run.add(40, 1, 1, 2, 3, 4), run.add(40, 1, 1, 2, 3, 4)
    run.run()
    assert second.cached_tokens == 0
    run.finish()
    assert third.cached_tokens == 16


def test_a_state_is_found_from_the_iteration_after_the_one_that_makes_it() -> None:
    run = driver(STATES, prefix_caching=True)
    run.add(17, 5, 1, 2, 3, 4)
    again = run.add(17, 5, 1, 2, 3, 4)
    run.start()
    # The prompt is cut where its last state is to be kept; who would go on from it has to wait.
    assert run.ran[-1][1] == {0: 16}
    run.end()
    run.run(2)
    assert again.cached_tokens == 16


def test_prompts_that_end_in_the_middle_of_states_blocks_are_cut_there() -> None:
    run = driver(STATES, prefix_caching=True, max_num_batched_tokens=10)
    run.add(23, 1)
    run.finish()
    # Multiples of 4 within a budget of 10, up to the last state; then what is left.
    assert [chunks[0] for _, chunks in run.ran] == [8, 8, 4, 3]


def test_a_state_that_is_exported_cuts_no_prompt() -> None:
    exporting = (KVGroup("state", 4, count=3, exports=True), KVGroup("full", 4))
    run = driver(exporting, prefix_caching=True)
    run.add(23, 5, 1, 2, 3, 4, 5)
    run.run()
    assert run.ran == [([], {0: 23})]
    # The state at 20 tokens, beside that at 23.
    assert used(run) == 3 * 2 + 6
    again = run.add(23, 5, 1, 2, 3, 4, 5)
    run.run()
    assert again.cached_tokens == 20


def test_a_log_of_the_cache_tells_of_the_layers_that_keep_every_token() -> None:
    run = driver(HALF, prefix_caching=True, kv_blocks=20)
    log = run.instance.log_cache()
    run.add(17, 1, 1, 2, 3, 4)
    run.run()
    assert log.drain() == ([1, 2, 3, 4], [])
    run.add(33, 1)
    run.run()
    assert set(log.drain()[1]) <= {1, 2, 3, 4}


def test_a_request_moves_with_its_window() -> None:
    source, destination = driver(HALF), driver(HALF)
    request = source.add(30, 20)
    source.run(3)
    source.instance.detach(request, source.now_s)
    assert source.instance.plan(source.now_s) is None
    (departed,) = source.instance.departed
    context = departed.total_tokens - 1
    source.instance.drop(departed)
    assert used(source) == 0
    blocks = destination.instance.blocks_for(context)
    assert destination.instance.tokens_for(blocks) >= context
    assert destination.instance.reserve(blocks)
    destination.instance.attach(departed, blocks, 0.0)
    destination.run()
    # 33 tokens, of which the window looks at the last 8.
    assert used(destination) == 3 + 9
    destination.finish()
    assert (used(destination), departed.generated_tokens) == (0, 20)


def test_blocks_that_are_more_than_counts_are_of_one_group() -> None:
    config = EngineConfig(kv_blocks=100, max_model_len=1000, block_tokens=4, kv_groups=HALF)
    with pytest.raises(InputError, match="of one group of layers"):
        engine_named("vllm-0.32")(config, pool=driver(HALF).instance.pool)


def test_groups_blocks_are_multiples_of_what_names_them() -> None:
    with pytest.raises(InputError, match=r"must be multiples of block_tokens \(16\)"):
        EngineConfig(kv_blocks=100, max_model_len=1000, kv_groups=(KVGroup("full", 24),))


GROUPS = [
    HALF,
    STATES,
    (KVGroup("window", 4, 9, count=3), KVGroup("full", 8)),
    (KVGroup("chunk", 4, 12, count=3), KVGroup("full", 4)),
    (KVGroup("window", 4, 13),),
]


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[EngineConfig, list[Job]]:
    groups = draw(st.sampled_from(GROUPS))
    tables = sum(group.count for group in groups)
    caching = draw(st.booleans())
    config = EngineConfig(
        kv_blocks=tables * draw(st.integers(24, 40)),
        max_model_len=1000,
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=draw(st.integers(6, 40)),
        block_tokens=4,
        prefix_caching=caching,
        reserve_full_prompt=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
        kv_groups=groups,
    )
    jobs = []
    for index in range(draw(st.integers(1, 8))):
        prompt, output = draw(st.integers(1, 60)), draw(st.integers(1, 30))
        shared = draw(st.integers(0, prompt // 4))
        own = 1000 * index + 100_000
        keys = (range(shared), range(own, own + (prompt + output) // 4 - shared)) if caching else ()
        jobs.append(Job(2 * index + (2 * index + 1) / 4096, prompt, output, tuple(key for key in keys if key)))
    return config, jobs


@given(scenarios())
@settings(max_examples=60, deadline=None)
def test_skipping_over_iterations_changes_nothing(scenario: tuple[EngineConfig, list[Job]]) -> None:
    config, jobs = scenario
    instance = GroupedVLLMEngine(config)
    stepped = drive(GroupedVLLMEngine(config, max_iterations=1), jobs, iteration_s)
    skipped = drive(instance, jobs, iteration_s)
    assert skipped.iterations == stepped.iterations
    assert skipped.blocks_used == stepped.blocks_used
    assert [request.last_token_s for request in skipped.requests] == [r.last_token_s for r in stepped.requests]
    assert [request.cached_tokens for request in skipped.requests] == [r.cached_tokens for r in stepped.requests]
    assert (instance.pool.free, instance.running, instance.violations()) == (config.kv_blocks, 0, [])
