"""One instance by hand: an iteration lasts one second unless told otherwise, so that times count iterations."""

from __future__ import annotations

import pytest

from l4sim.batch import Prefill
from l4sim.engine.config import EngineConfig
from l4sim.engine.request import Request
from l4sim.engine.vllm.engine import VLLMEngine
from l4sim.engine.vllm.versions import VERSIONS
from tests.engine.vllm.driving import Driver, instance_with

# Batching.


def test_a_long_prompt_is_cut_to_what_decoding_leaves_of_the_budget() -> None:
    driver = Driver(instance_with(max_num_seqs=4, max_num_batched_tokens=8))
    for _ in range(3):
        driver.add(2, 100)
    driver.run()
    driver.add(20, 2)
    driver.run(4)
    # Budget 8, three decode: 5 prompt tokens per iteration, 4 iterations for 20.
    assert driver.ran[0] == ([], {0: 2, 1: 2, 2: 2})
    assert driver.ran[1:] == [([0, 1, 2], {3: 5})] * 4
    assert driver.requests[3].first_token_s == 5.0
    driver.run()
    assert driver.ran[5] == ([0, 1, 2, 3], {})


def test_what_a_prompt_leaves_of_the_budget_goes_to_the_next_one() -> None:
    driver = Driver(instance_with(max_num_batched_tokens=8))
    driver.add(10, 5)
    driver.add(10, 5)
    driver.run(3)
    # 8 of the first; its last 2 and 6 of the second; the first decodes beside the second's last 4.
    assert driver.ran == [([], {0: 8}), ([], {0: 2, 1: 6}), ([0], {1: 4})]


def test_the_batch_tells_lengths_with_the_token_being_computed() -> None:
    instance = instance_with(max_num_batched_tokens=8)
    driver = Driver(instance)
    driver.add(6, 5)
    driver.run()
    driver.add(10, 5)
    step = instance.plan(driver.now_s)
    assert step is not None
    assert step.batch.decode_context_tokens.tolist() == [7]
    assert step.batch.decode_context_sum == 7
    assert step.batch.prefills == (Prefill(chunk_tokens=7, cached_tokens=0, samples=False),)
    assert (step.batch.tokens, step.batch.sampled) == (8, 1)


def test_no_more_run_than_places() -> None:
    driver = Driver(instance_with(max_num_seqs=2))
    for output in (2, 4, 2):
        driver.add(3, output)
    driver.finish()
    # The first ends with iteration 1 and gives its place to the third.
    assert driver.ran == [([], {0: 3, 1: 3}), ([0, 1], {}), ([1], {2: 3}), ([1, 2], {})]


def test_an_answer_of_one_token_ends_with_its_prompt() -> None:
    driver = Driver(instance_with())
    request = driver.add(10, 1)
    assert driver.run().finished == [request]
    assert (request.first_token_s, request.last_token_s, request.max_itl_s) == (1.0, 1.0, 0.0)
    assert (driver.instance.running, driver.instance.pool.free) == (0, 100)
    assert driver.instance.plan(driver.now_s) is None


def test_an_answer_holds_no_block_for_its_last_token() -> None:
    # 6 prompt tokens and 3 generated: the KV of the last is never computed, and 8 tokens lie in 2 blocks.
    driver = Driver(instance_with(kv_blocks=2))
    request = driver.add(6, 3)
    assert driver.instance.refusal(request) is None
    driver.finish()
    assert (request.last_token_s, request.preemptions) == (3.0, 0)


def test_requests_that_can_never_fit_are_refused_with_the_reason() -> None:
    # 21 tokens have their KV in 6 blocks when the answer is 2 tokens long, and 20 in 5 when it is 1.
    instance = instance_with(kv_blocks=5, max_model_len=30)
    assert instance.refusal(Request(0, 0.0, 20, 2)) == "prompt and output need more than the instance's 5 KV blocks"
    assert instance.refusal(Request(0, 0.0, 20, 1)) is None
    assert instance.refusal(Request(0, 0.0, 20, 11)) == "prompt and output exceed max_model_len 30"


def test_waiting_tokens_are_those_of_the_queue() -> None:
    driver = Driver(instance_with(max_num_seqs=1))
    driver.add(10, 5)
    driver.add(20, 5)
    assert driver.instance.waiting_tokens == 30
    driver.run()
    assert driver.instance.waiting_tokens == 20
    driver.finish()
    assert driver.instance.waiting_tokens == 0


# When a change is felt.


def test_synchronously_an_arrival_and_an_end_are_felt_by_the_next_iteration() -> None:
    driver = Driver(instance_with(max_num_seqs=2))
    driver.add(3, 4)
    driver.start()
    driver.add(3, 2, at_s=0.5)
    driver.end()
    driver.run(2)
    driver.add(3, 1)
    driver.run()
    # 1 came during iteration 0 and runs in 1. It ends in 2; 2 has its place in 3.
    assert driver.ran == [([], {0: 3}), ([0], {1: 3}), ([0, 1], {}), ([0], {2: 3})]


def test_asynchronously_an_arrival_is_felt_by_the_iteration_after_the_next() -> None:
    driver = Driver(instance_with(async_scheduling=True))
    driver.add(3, 4)
    driver.start()
    late = driver.add(3, 2, at_s=0.5)
    driver.end()
    driver.run(2)
    assert driver.ran == [([], {0: 3}), ([0], {}), ([0], {1: 3})]
    # Iteration 2 was planned when iteration 1 began.
    assert late.scheduled_s == 1.0
    assert late.first_token_s == 3.0


@pytest.mark.parametrize("scarce", [{"max_num_seqs": 2}, {"kv_blocks": 4}], ids=["place", "blocks"])
def test_asynchronously_an_ended_request_has_made_room_for_the_iteration_after_the_next(scarce: dict[str, int]) -> None:
    driver = Driver(instance_with(async_scheduling=True, **scarce))
    driver.add(2, 5)
    driver.add(5, 2)
    driver.add(5, 1)
    driver.run(4)
    # 1 ends in iteration 1, when iteration 2 is planned already. Of 4 blocks 0 and 1 hold 1 + 2, and 2 needs 2.
    assert driver.ran == [([], {0: 2, 1: 5}), ([0, 1], {}), ([0], {}), ([0], {2: 5})]


def test_asynchronously_an_idle_instance_starts_an_arrival_at_once() -> None:
    driver = Driver(instance_with(async_scheduling=True))
    driver.add(3, 1)
    driver.run()
    assert driver.instance.plan(driver.now_s) is None
    driver.now_s = 7.0
    request = driver.add(3, 2)
    driver.finish()
    assert (request.scheduled_s, request.first_token_s, request.last_token_s) == (7.0, 8.0, 9.0)


# Admission.


def blocked_head(reserve_full_prompt: bool) -> Driver:
    """Eight of ten blocks are taken; a prompt of 16 tokens waits with a budget of 8, one of 2 tokens behind it."""
    driver = Driver(
        instance_with(kv_blocks=10, max_num_seqs=4, max_num_batched_tokens=9, reserve_full_prompt=reserve_full_prompt)
    )
    driver.add(29, 3)
    driver.run(4)
    driver.add(16, 1)
    driver.add(2, 1)
    return driver


def test_a_prompt_that_does_not_fit_whole_blocks_the_queue() -> None:
    driver = blocked_head(reserve_full_prompt=True)
    driver.run(4)
    # 16 tokens need 4 blocks, 2 are free, and nobody overtakes; the first ends with iteration 5.
    assert driver.ran[4:] == [([0], {}), ([0], {}), ([], {1: 9}), ([], {1: 7, 2: 2})]
    assert driver.requests[1].preemptions == 0


def test_without_reservation_a_prompt_starts_when_its_first_chunk_fits() -> None:
    driver = blocked_head(reserve_full_prompt=False)
    driver.run(3)
    # Its first 8 tokens fill the 2 free blocks. In iteration 5 its next 8 find none, and it starts over once 0 has
    # ended. The chunk asked for 9 - 1 tokens both times.
    assert driver.ran[4:] == [([0], {1: 8}), ([0], {}), ([], {1: 9})]
    assert driver.requests[1].preemptions == 1


# Preemption.


def test_the_latest_is_preempted_and_starts_over_from_the_head_of_the_queue() -> None:
    driver = Driver(instance_with(kv_blocks=5, max_num_seqs=2))
    first, second = driver.add(7, 6), driver.add(7, 6)
    third = driver.add(1, 1)
    driver.finish()
    # Two blocks each. Iteration 1 computes the 8th tokens, iteration 2 the 9ths: the fifth block is the first
    # request's, and the second, 2 tokens generated, is preempted. Its 9 tokens need 3 blocks, free when the first,
    # with 12 tokens in 3 blocks, has ended with iteration 5. The third waits behind it.
    assert driver.ran == [
        ([], {0: 7, 1: 7}),
        ([0, 1], {}),
        ([0], {}),
        ([0], {}),
        ([0], {}),
        ([0], {}),
        ([], {1: 9, 2: 1}),
        ([1], {}),
        ([1], {}),
        ([1], {}),
    ]
    assert [request.preemptions for request in (first, second, third)] == [0, 1, 0]
    # The second's tokens came at 1, 2, 7, 8, 9 and 10.
    assert (second.first_token_s, second.last_token_s, second.max_itl_s) == (1.0, 10.0, 5.0)
    assert (second.scheduled_s, first.max_itl_s) == (0.0, 1.0)
    assert driver.instance.preempted == [second]


def test_a_prompt_partly_done_is_preempted_first_and_nothing_is_admitted_in_that_iteration() -> None:
    driver = Driver(instance_with(kv_blocks=4, max_num_seqs=2, max_num_batched_tokens=5, reserve_full_prompt=False))
    driver.add(6, 9)
    driver.run(2)
    long = driver.add(12, 2)
    driver.run(4)
    # Blocks in use: 2 + 1 in iteration 2, 2 + 2 in iteration 3. In iteration 4 request 0 needs a third, for its 9th
    # token; a fourth is free then, enough for 4 prompt tokens, yet these wait for iteration 5.
    assert driver.ran == [([], {0: 5}), ([], {0: 1}), ([0], {1: 4}), ([0], {1: 4}), ([0], {}), ([0], {1: 4})]
    assert long.preemptions == 1
    driver.finish()
    # No token of it was there before the preemption: no inter-token latency counts the loss.
    assert long.max_itl_s == 1.0


def test_a_preempted_request_resumes_through_its_own_cached_blocks() -> None:
    driver = Driver(instance_with(kv_blocks=6, max_num_seqs=2, prefix_caching=True))
    driver.add(7, 10)
    second = driver.add(10, 4, 1, 2)
    driver.finish()
    # 2 + 3 blocks, then 3 + 3 with iteration 2. Iteration 3 computes the second's 13th token and finds no block: it is
    # preempted with 12 tokens in 3 full blocks, two of them its prompt's. The first takes one for its 13th token in
    # iteration 6, the last of the second's three, and ends with iteration 9. Of 13 tokens 8 are found, 5 computed.
    assert driver.ran[2:4] == [([0, 1], {}), ([0], {})]
    assert driver.ran[9:] == [([0], {}), ([], {1: 5})]
    assert (second.preemptions, second.cached_tokens) == (1, 0)
    assert second.last_token_s == 11.0
    assert driver.instance.pool.free == 6


def test_asynchronously_a_request_that_is_about_to_end_may_be_preempted_and_ends_all_the_same() -> None:
    # The first two blocks hold 8 tokens each. The second's last token comes with iteration 4, when iteration 5 is
    # planned already: for the first's 9th token it takes the second's blocks.
    driver = Driver(instance_with(kv_blocks=4, async_scheduling=True))
    first, second = driver.add(4, 8), driver.add(4, 5)
    driver.run(4)
    outcome = driver.run()
    assert outcome.finished == [second]
    assert [request.preemptions for request in (first, second)] == [0, 1]
    assert (second.generated_tokens, second.last_token_s, driver.instance.preempted) == (5, 5.0, [])
    driver.finish()
    assert driver.ran[5:] == [([0], {})] * 3
    assert driver.instance.pool.free == 4


# Priorities.


def test_by_priority_the_lowest_number_is_admitted_first_and_of_equal_ones_the_earliest() -> None:
    driver = Driver(instance_with(max_num_seqs=1, scheduling_policy="priority"))
    driver.add(3, 2)
    driver.start()
    for priority in (2, 1, 0, 1):
        driver.add(3, 1, priority=priority)
    driver.end()
    driver.finish()
    assert [next(iter(prompts)) for _, prompts in driver.ran if prompts] == [0, 3, 2, 4, 1]


def test_by_priority_an_urgent_arrival_is_seen_behind_a_blocked_head() -> None:
    config = EngineConfig(
        kv_blocks=8, max_model_len=100, block_tokens=4, async_scheduling=False, scheduling_policy="priority"
    )
    instance = VLLMEngine(config)
    for index, (prompt, priority) in enumerate(((20, 0), (20, 1))):
        instance.add(Request(index, 0.0, prompt, 10, priority=priority), 0.0)
    step = instance.plan(0.0)
    assert step is not None
    assert instance.admission_blocked
    instance.add(Request(2, 0.5, 2, 1), 0.5)
    assert not instance.admission_blocked
    instance.commit(step, 1.0)
    following = instance.plan(1.0)
    assert following is not None
    assert [chunk.request.index for chunk in following.chunks] == [2]


def test_by_priority_the_least_urgent_is_preempted_wherever_it_stands() -> None:
    driver = Driver(instance_with(kv_blocks=5, scheduling_policy="priority"))
    patient, urgent = driver.add(7, 6, priority=1), driver.add(7, 6)
    driver.run(3)
    # Two blocks each. The 9th token of the first takes the fifth, that of the second finds none: the first has to go,
    # although it has had its turn in this iteration.
    assert driver.ran == [([], {0: 7, 1: 7}), ([0, 1], {}), ([1], {})]
    assert (patient.preemptions, urgent.preemptions) == (1, 0)
    driver.finish()
    assert driver.instance.pool.free == 5


def test_by_priority_who_stands_behind_one_that_preempts_itself_sits_an_iteration_out() -> None:
    # Two blocks each are all. The second's 9th token finds none, and nobody is less urgent; the third, whose
    # turn would be next, gets its token an iteration later.
    driver = Driver(instance_with(kv_blocks=6, scheduling_policy="priority"))
    driver.add(5, 9)
    patient = driver.add(7, 9, priority=1)
    driver.start()
    last = driver.add(6, 3, at_s=0.5)
    driver.end()
    driver.run(4)
    assert driver.ran == [([], {0: 5, 1: 7}), ([0, 1], {2: 6}), ([0], {}), ([0, 2], {}), ([0, 2], {})]
    assert (patient.preemptions, last.preemptions) == (1, 0)
    # Its tokens came at 2, 4 and 5.
    assert (last.max_itl_s, last.last_token_s) == (2.0, 5.0)


# Long prompts.


def test_a_long_prompt_leaves_room_for_others_of_which_several_may_be_partly_done() -> None:
    driver = Driver(instance_with(max_num_batched_tokens=20, long_prefill_token_threshold=8))
    driver.add(20, 5)
    driver.add(18, 5)
    driver.add(3, 5)
    driver.run(4)
    # 8 of each long prompt in an iteration, and what is left of 20 for the third; then 4 and 2 are left of the two.
    assert driver.ran == [([], {0: 8, 1: 8, 2: 3}), ([2], {0: 8, 1: 8}), ([2], {0: 4, 1: 2}), ([0, 1, 2], {})]


@pytest.mark.parametrize(("rules", "chunks"), [("vllm-0.19", [8, 8, 4]), ("vllm-0.32", [20])])
def test_a_long_prompt_that_is_alone_is_cut_by_older_versions_only(rules: str, chunks: list[int]) -> None:
    config = EngineConfig(
        kv_blocks=50,
        max_model_len=100,
        max_num_batched_tokens=300,
        long_prefill_token_threshold=8,
        async_scheduling=False,
    )
    driver = Driver(VLLMEngine(config, rules=VERSIONS[rules], max_iterations=1))
    driver.add(20, 1)
    driver.finish()
    assert [prompts[0] for _, prompts in driver.ran] == chunks


# Prefix caching.


def test_a_cached_prefix_is_not_computed_and_costs_no_budget() -> None:
    driver = Driver(instance_with(prefix_caching=True, max_num_batched_tokens=16))
    driver.add(10, 1, 1, 2)
    driver.run()
    hit = driver.add(14, 1, 1, 2, 3)
    other = driver.add(10, 1, 7, 8)
    driver.run()
    # 8 of 14 tokens are found: 6 of the budget of 16 go to them, 10 to the other.
    assert driver.ran[1] == ([], {1: 6, 2: 10})
    assert (hit.cached_tokens, other.cached_tokens) == (8, 0)


def test_a_prefix_is_found_in_the_very_iteration_that_computes_it() -> None:
    # As in vLLM, where a block is cached when it is scheduled.
    driver = Driver(instance_with(prefix_caching=True))
    driver.add(10, 1, 1, 2)
    driver.add(10, 1, 1, 2)
    driver.run()
    assert driver.ran == [([], {0: 10, 1: 2})]


# Inter-token latencies.


def test_a_prompt_beside_it_lengthens_the_longest_inter_token_latency() -> None:
    driver = Driver(instance_with())
    early = driver.add(4, 6)
    driver.run(seconds=9.0)
    driver.run(seconds=1.5)
    late = driver.add(40, 3)
    for seconds in (4.0, 1.0, 2.0, 1.0):
        driver.run(seconds=seconds)
    # The first token ends the prompt's 9 seconds; the late one's prompt takes 4, before its own first token.
    assert (early.max_itl_s, early.last_token_s) == (4.0, 18.5)
    assert (late.max_itl_s, late.last_token_s) == (2.0, 17.5)


# Boundaries.


def test_a_boundary_is_reported_when_the_context_reaches_it() -> None:
    driver = Driver(instance_with())
    driver.instance.decoding.watch(8)
    short, long = driver.add(5, 10), driver.add(9, 10)
    # After the prompts 5 and 9 tokens have their KV: the long one is beyond, and reported with its next token.
    assert [driver.run().crossed for _ in range(5)] == [[], [long], [], [short], []]


# Repetition.


def test_a_step_may_be_repeated_until_something_can_change() -> None:
    config = EngineConfig(kv_blocks=8, max_model_len=100, max_num_seqs=1, block_tokens=4, async_scheduling=False)
    instance = VLLMEngine(config)
    first, second = Request(0, 0.0, 6, 20), Request(1, 0.0, 4, 2)
    instance.add(first, 0.0)
    instance.add(second, 0.0)
    prompt = instance.plan(0.0)
    assert prompt is not None
    assert prompt.iterations == 1
    instance.commit(prompt, 1.0)
    # 19 tokens are left, and the queue's head has no place before they are there.
    step = instance.plan(1.0)
    assert step is not None
    assert (step.iterations, instance.admission_blocked) == (19, True)
    # Context 6 + 19 - 1 at the end: 25 tokens less the last one's, in 7 blocks.
    outcome = instance.commit(step, 20.0, iterations=19, last_started_s=19.0, longest_s=1.0)
    assert outcome.finished == [first]
    assert (first.last_token_s, first.max_itl_s) == (20.0, 1.0)
    assert instance.pool.free == 8


def test_a_repeated_step_takes_its_blocks_when_it_is_committed() -> None:
    config = EngineConfig(kv_blocks=50, max_model_len=400, max_num_seqs=1, block_tokens=4, async_scheduling=False)
    instance = VLLMEngine(config)
    instance.add(Request(0, 0.0, 6, 100), 0.0)
    for now_s, iterations in ((0.0, 1), (1.0, 30)):
        step = instance.plan(now_s)
        assert step is not None
        instance.commit(step, now_s + iterations, iterations=iterations)
    # 36 tokens have their KV, in 9 blocks.
    assert instance.pool.free == 41
