"""Requests that leave one instance for another, by hand: blocks, places and inter-token latencies."""

from __future__ import annotations

import pytest

from l4sim.engine.config import EngineConfig
from l4sim.engine.request import Request
from l4sim.engine.vllm.engine import VLLMEngine
from tests.engine.vllm.driving import Driver, instance_with


def test_a_reservation_takes_blocks_and_a_place() -> None:
    instance = instance_with(kv_blocks=10, max_num_seqs=2)
    assert instance.reserve(4)
    assert (instance.pool.free, instance.running) == (6, 0)
    assert not instance.reserve(7)
    assert instance.reserve_more(2)
    assert instance.reserve(1)
    assert not instance.reserve(1)
    assert instance.pool.free == 3
    instance.cancel_reservation(6)
    assert instance.pool.free == 9
    assert instance.reserve(1)


def test_a_reserved_place_is_not_given_to_who_waits() -> None:
    driver = Driver(instance_with(max_num_seqs=1))
    assert driver.instance.reserve(1)
    driver.add(3, 1)
    assert driver.instance.plan(0.0) is None
    assert driver.instance.admission_blocked
    driver.instance.cancel_reservation(1)
    driver.run()
    assert driver.ran == [([], {0: 3})]


def test_a_newcomer_may_not_have_the_blocks_that_decoding_takes_next() -> None:
    # Contexts 7 and 8 in 4 blocks of 6. The 9th token of the second opens a block in the iteration under way, the
    # first's 9th in the next: one block is spare now, none behind it.
    driver = Driver(instance_with(kv_blocks=6))
    driver.add(7, 9)
    driver.add(8, 9)
    driver.run()
    driver.start()
    assert driver.instance.pool.free == 1
    assert driver.instance.spare_blocks() == 0
    assert not driver.instance.reserve(1)
    assert not driver.instance.reserve_more(1)


def departed(driver: Driver, request: Request) -> None:
    """Let a request leave the batch; it has its blocks still."""
    driver.instance.detach(request, driver.now_s)
    driver.run()
    assert driver.instance.departed == [request]
    driver.instance.departed.clear()


def test_a_request_that_migrates_decodes_on_elsewhere() -> None:
    source, target = Driver(instance_with()), Driver(instance_with(kv_blocks=10))
    moving, staying = source.add(6, 6), source.add(6, 20)
    source.run(3)
    departed(source, moving)
    # Its prompt's token and two more: 8 tokens have their KV, in 2 blocks, and it holds them and its place.
    assert moving.total_tokens == 9
    assert source.ran[-1] == ([1], {})
    assert (source.instance.running, source.instance.pool.free) == (2, 100 - 2 - 3)
    assert target.instance.reserve(4)
    source.instance.drop(moving)
    assert (source.instance.running, source.instance.pool.free) == (1, 100 - 3)
    target.now_s = 5.0
    target.instance.attach(moving, 4, target.now_s)
    target.run()
    # Of four blocks reserved it needs two, and a third for its 9th token.
    assert (target.instance.running, target.instance.pool.free) == (1, 7)
    target.run(2)
    # Tokens at 1, 2, 3, then 6, 7, 8; the pause is its longest inter-token latency.
    assert (moving.last_token_s, moving.max_itl_s, moving.generated_tokens) == (8.0, 3.0, 6)
    assert (target.instance.running, target.instance.pool.free) == (0, 10)
    assert (staying.max_itl_s, source.instance.decoding.requests) == (0.0, [staying])


def test_a_request_that_cannot_move_decodes_on_where_it_was() -> None:
    driver = Driver(instance_with(max_num_seqs=2))
    moving, staying = driver.add(6, 5), driver.add(6, 20)
    driver.run(2)
    departed(driver, moving)
    free = driver.instance.pool.free
    driver.run()
    waiting = driver.add(1, 1)
    driver.instance.restore(moving, driver.now_s)
    driver.run()
    # It kept its place, so the one that came meanwhile waits; its tokens came at 1, 2 and 5.
    assert driver.ran[-1] == ([0, 1], {})
    assert moving.generated_tokens == 2
    assert driver.instance.decoding.context_tokens(moving) == 8
    assert driver.instance.pool.free == free - 1
    driver.finish()
    assert (moving.max_itl_s, moving.last_token_s) == (3.0, 7.0)
    assert waiting.first_token_s == 8.0
    assert staying.max_itl_s == 1.0
    assert driver.instance.pool.free == 100


def test_asynchronously_a_departure_is_felt_by_the_iteration_after_the_next() -> None:
    driver = Driver(instance_with(async_scheduling=True))
    moving = driver.add(6, 20)
    driver.add(6, 20)
    driver.run()
    driver.start()
    driver.instance.detach(moving, 1.5)
    driver.end()
    driver.run(2)
    assert [decoding for decoding, _ in driver.ran[1:]] == [[0, 1], [0, 1], [1]]
    assert driver.instance.departed == [moving]


def test_asynchronously_a_migrated_request_joins_the_iteration_after_the_next() -> None:
    driver = Driver(instance_with(async_scheduling=True))
    driver.add(6, 20)
    driver.run()
    moving = Request(7, 0.0, 9, 20)
    moving.generated_tokens = 3
    moving.last_token_s = 0.5
    driver.start()
    assert driver.instance.reserve(3)
    driver.instance.attach(moving, 3, 1.5)
    driver.end()
    driver.run(2)
    assert [decoding for decoding, _ in driver.ran[1:]] == [[0], [0], [0, 7]]
    assert (moving.generated_tokens, driver.instance.decoding.context_tokens(moving)) == (3, 12)
    assert moving.max_itl_s == 3.5


def test_a_request_that_ends_before_it_departs_stays_ended() -> None:
    driver = Driver(instance_with())
    request = driver.add(6, 2)
    driver.run()
    driver.start()
    driver.instance.detach(request, 1.5)
    assert driver.end().finished == [request]
    assert driver.instance.plan(driver.now_s) is None
    assert (driver.instance.departed, driver.instance.pool.free) == ([], 100)


@pytest.mark.parametrize("prefix_caching", [False, True])
def test_a_departed_request_leaves_its_shared_prefix_cached(prefix_caching: bool) -> None:
    driver = Driver(instance_with(prefix_caching=prefix_caching))
    moving = driver.add(10, 20, 1, 2)
    driver.add(1, 20)
    driver.run(2)
    departed(driver, moving)
    driver.instance.drop(moving)
    again = driver.add(10, 20, 1, 2)
    driver.run()
    assert again.cached_tokens == (8 if prefix_caching else 0)


def test_the_first_step_of_a_migrated_request_is_not_repeated() -> None:
    # Its first token here ends the gap; those behind it are an iteration apart.
    instance = VLLMEngine(EngineConfig(kv_blocks=100, max_model_len=1000, block_tokens=4, async_scheduling=False))
    moving = Request(0, 0.0, 9, 20)
    moving.generated_tokens = 3
    moving.last_token_s = 0.5
    assert instance.reserve(3)
    instance.attach(moving, 3, 2.0)
    first = instance.plan(2.0)
    assert first is not None
    assert first.iterations == 1
    instance.commit(first, 3.0)
    rest = instance.plan(3.0)
    assert rest is not None
    assert rest.iterations == 16
    instance.commit(rest, 19.0, iterations=16, longest_s=1.0)
    assert (moving.max_itl_s, moving.last_token_s) == (2.5, 19.0)


def test_an_instance_emptied_by_a_preemption_begins_anew_at_once() -> None:
    # One of three blocks is reserved. The 9th token finds none, so the only request is preempted; two blocks are free
    # for the first 8 tokens of its second start.
    driver = Driver(instance_with(kv_blocks=3, max_num_seqs=2, max_num_batched_tokens=8, reserve_full_prompt=False))
    request = driver.add(5, 8)
    driver.run()
    assert driver.instance.reserve(1)
    driver.run(4)
    assert driver.ran[1:] == [([0], {}), ([0], {}), ([0], {}), ([], {0: 8})]
    assert request.preemptions == 1
    driver.instance.cancel_reservation(1)
    driver.finish()
    assert (request.preemptions, driver.instance.pool.free) == (1, 3)


# Leaving the queue, and a dying instance.


def test_a_request_may_be_withdrawn_until_it_has_begun() -> None:
    driver = Driver(instance_with(max_num_seqs=1))
    begun, queued = driver.add(6, 5), driver.add(10, 5)
    driver.run()
    assert driver.instance.withdraw(begun.index) is None
    assert driver.instance.withdraw(queued.index) is queued
    assert driver.instance.withdraw(queued.index) is None
    assert driver.instance.waiting_tokens == 0
    driver.finish()
    assert driver.ran == [([], {0: 6}), *[([0], {})] * 4]


def test_a_dead_instance_gives_up_all_that_it_had_with_the_tokens_generated() -> None:
    driver = Driver(instance_with(max_num_seqs=2, max_num_batched_tokens=8, prefix_caching=True))
    decoding, prompting, queued = driver.add(5, 9, 1), driver.add(20, 9, 2, 3, 4, 5, 6), driver.add(3, 9)
    driver.run(2)
    step = driver.instance.plan(driver.now_s)
    assert driver.instance.evacuate(step) == [decoding, prompting, queued]
    # What the iteration under way would have brought is lost; the tokens of those before it are not.
    assert [request.generated_tokens for request in (decoding, prompting, queued)] == [2, 0, 0]
    assert [request.has_begun for request in (decoding, prompting, queued)] == [True, True, False]
    assert [request.held for request in (decoding, prompting)] == [None, None]
    # Elsewhere it computes prompt and answer so far, and its gap counts from its last token here, at 2.
    elsewhere = Driver(instance_with())
    elsewhere.now_s = 7.0
    elsewhere.instance.add(decoding, elsewhere.now_s)
    elsewhere.run()
    assert elsewhere.ran == [([], {0: 7})]
    assert (decoding.generated_tokens, decoding.max_itl_s) == (3, 6.0)
