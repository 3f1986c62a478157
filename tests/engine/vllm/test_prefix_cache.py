"""The prefix cache: cases by hand, and random requests beside a pool that keeps every block as an object."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from l4sim.engine.blocks import NO_MATCH, blocks_for
from l4sim.engine.request import Request
from l4sim.engine.vllm.prefix_cache import PrefixCachingPool
from tests.engine.vllm.reference import Holder, ReferencePool


def arriving(index: int, prompt_tokens: int, *prefix_ids: int, output_tokens: int = 100) -> Request:
    return Request(index, 0.0, prompt_tokens, output_tokens, prefix_ids=prefix_ids)


def serve(pool: PrefixCachingPool, request: Request) -> int:
    """Compute all of a request's tokens but those found in the cache; returns how many were found."""
    match = pool.match(request)
    pool.hold(request, match)
    pool.take(blocks_for(request.total_tokens, pool.block_tokens) - match.blocks)
    pool.computed(request, request.total_tokens)
    return match.tokens


def finish(pool: PrefixCachingPool, request: Request) -> None:
    pool.release(request, request.total_tokens, resumable=False)


def test_a_prefix_is_found_by_others_while_its_maker_runs_and_after() -> None:
    # Blocks of 16: 40 tokens lie in 3 blocks, 2 of them full and shared.
    pool = PrefixCachingPool(10, 16, 16)
    maker = arriving(0, 40, 7, 8)
    assert serve(pool, maker) == 0
    assert pool.free == 7
    other = arriving(1, 50, 7, 8, 9)
    assert serve(pool, other) == 32
    # 4 blocks hold its 50 tokens, and it brings only two of its own.
    assert pool.free == 5
    finish(pool, maker)
    assert pool.free == 6
    finish(pool, other)
    assert pool.free == 10
    assert pool.match(arriving(2, 100, 7, 8, 9, 10)).tokens == 48


def test_prompts_agree_as_far_as_their_leading_ids() -> None:
    pool = PrefixCachingPool(20, 16, 16)
    finish_me = arriving(0, 64, 1, 2, 3, 4)
    serve(pool, finish_me)
    finish(pool, finish_me)
    assert pool.match(arriving(1, 64, 1, 2, 9, 4)).tokens == 32
    assert pool.match(arriving(2, 64, 9, 2, 3, 4)) == NO_MATCH


def test_id_0_is_a_prefix_like_any_other() -> None:
    pool = PrefixCachingPool(4, 16, 16)
    maker = arriving(0, 20, 0)
    serve(pool, maker)
    finish(pool, maker)
    passer_by = arriving(1, 20, 5)
    serve(pool, passer_by)
    finish(pool, passer_by)
    assert pool.match(arriving(2, 20, 0)).tokens == 16


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    # All 32 tokens are cached; vLLM reuses the leading 16, since 31 tokens fill one block.
    pool = PrefixCachingPool(10, 16, 16)
    serve(pool, arriving(0, 32, 1, 2))
    match = pool.match(arriving(1, 32, 1, 2))
    assert (match.tokens, match.blocks, match.idle_blocks) == (16, 2, 0)


def test_the_block_of_a_hash_is_shared_only_when_it_is_complete() -> None:
    # Hash blocks of 64 tokens over KV blocks of 16: after 100 tokens one hash block is complete, after 128 the other.
    pool = PrefixCachingPool(20, 16, 64)
    maker = arriving(0, 130, 1, 2)
    pool.take(7)
    pool.computed(maker, 100)
    assert pool.match(arriving(1, 130, 1, 2)).tokens == 64
    pool.take(2)
    pool.computed(maker, 130)
    match = pool.match(arriving(2, 130, 1, 2))
    assert (match.tokens, match.blocks, match.idle_blocks) == (128, 8, 0)


def test_what_was_used_longest_ago_is_evicted_first() -> None:
    pool = PrefixCachingPool(3, 16, 16)
    for index in (0, 1, 2):
        request = arriving(index, 16, index)
        serve(pool, request)
        finish(pool, request)
    again = arriving(3, 20, 0)
    serve(pool, again)
    # The second block of the 20 tokens evicts the oldest idle one, id 1; id 0 was used again, id 2 came later.
    assert pool.match(arriving(4, 17, 1)) == NO_MATCH
    assert pool.match(arriving(5, 17, 2)).tokens == 16
    assert pool.match(arriving(6, 17, 0)).tokens == 16


def test_the_tail_of_a_context_is_evicted_before_its_head() -> None:
    pool = PrefixCachingPool(4, 16, 16)
    maker = arriving(0, 64, 1, 2, 3, 4)
    serve(pool, maker)
    finish(pool, maker)
    pool.take(2)
    assert pool.match(arriving(1, 70, 1, 2, 3, 4)).tokens == 32


def test_a_hash_block_evicted_in_part_is_lost_and_its_rest_goes_next() -> None:
    # Hash blocks of two KV blocks each: ids 1 and 2 idle, 2 next to go.
    pool = PrefixCachingPool(4, 16, 32)
    maker = arriving(0, 64, 1, 2)
    serve(pool, maker)
    finish(pool, maker)
    pool.take(1)
    assert pool.match(arriving(1, 70, 1, 2)).tokens == 32
    pool.take(1)
    assert pool.match(arriving(2, 70, 1, 2)).tokens == 32
    pool.take(1)
    assert pool.match(arriving(3, 70, 1, 2)) == NO_MATCH


def test_idle_blocks_of_a_match_count_as_taken() -> None:
    pool = PrefixCachingPool(4, 16, 16)
    first, second = arriving(0, 32, 1, 2), arriving(1, 16, 1)
    serve(pool, first)
    serve(pool, second)
    finish(pool, first)
    # Block 1 is held by the second, block 2 is idle.
    match = pool.match(arriving(2, 40, 1, 2))
    assert (match.tokens, match.blocks, match.idle_blocks) == (32, 2, 1)
    assert pool.free == 3
    serve(pool, arriving(2, 40, 1, 2))
    assert pool.free == 1


def test_a_preempted_request_finds_its_own_blocks_prompt_and_answer() -> None:
    # 40 prompt tokens and 30 generated: 4 full blocks of 16, the first two of them the prompt's.
    pool = PrefixCachingPool(10, 16, 16)
    request = arriving(0, 40, 1, 2)
    serve(pool, request)
    request.generated_tokens = 31
    pool.take(blocks_for(70, 16) - 3)
    pool.release(request, 70, resumable=True)
    assert pool.free == 10
    match = pool.match(request)
    assert (match.tokens, match.blocks, match.idle_blocks) == (64, 4, 4)
    # Nobody else's prompt says how the answer goes on: only the prompt's blocks are found.
    assert pool.match(arriving(1, 70, 1, 2, 3, 4)).tokens == 32


def test_own_blocks_are_evicted_from_the_tail() -> None:
    pool = PrefixCachingPool(5, 16, 16)
    request = arriving(0, 40, 1, 2)
    serve(pool, request)
    request.generated_tokens = 31
    pool.take(2)
    pool.release(request, 70, resumable=True)
    # To go: the block begun, then the fourth, the third, and the prompt's second and first.
    found = []
    for _ in range(5):
        pool.take(1)
        found.append(pool.match(request).tokens)
    assert found == [64, 48, 32, 16, 0]


def test_a_request_that_ended_leaves_its_prompt_only() -> None:
    pool = PrefixCachingPool(10, 16, 16)
    request = arriving(0, 40, 1, 2)
    serve(pool, request)
    request.generated_tokens = 31
    pool.take(2)
    pool.release(request, 70, resumable=False)
    assert pool.match(request).tokens == 32


def test_a_prompt_cut_inside_a_hash_block_leaves_the_complete_ones_only() -> None:
    # Hash blocks of 64 over KV blocks of 16, preempted after 100 of 130 prompt tokens: tokens 64 to 96 are lost, and
    # are not counted on top when another request has computed the second hash block.
    pool = PrefixCachingPool(40, 16, 64)
    cut, other = arriving(0, 130, 1, 2), arriving(1, 130, 1, 2)
    pool.take(7)
    pool.computed(cut, 100)
    pool.release(cut, 100, resumable=True)
    assert pool.match(cut).tokens == 64
    serve(pool, other)
    match = pool.match(cut)
    assert (match.tokens, match.blocks, match.idle_blocks) == (128, 8, 0)


def test_a_prefix_that_two_compute_at_once_is_shared_by_the_first() -> None:
    pool = PrefixCachingPool(10, 16, 16)
    first, second = arriving(0, 32, 1, 2), arriving(1, 32, 1, 2)
    pool.take(4)
    pool.computed(first, 32)
    pool.computed(second, 32)
    finish(pool, second)
    assert pool.free == 8
    match = pool.match(arriving(2, 40, 1, 2))
    assert (match.tokens, match.idle_blocks) == (32, 0)
    finish(pool, first)
    assert pool.free == 10


def test_more_than_there_is_cannot_be_taken() -> None:
    pool = PrefixCachingPool(3, 16, 16)
    with pytest.raises(AssertionError, match="took 4 blocks of 3 free"):
        pool.take(4)


BLOCKS = 14
BLOCK_TOKENS = 2


@dataclass
class Pair:
    """One request in both pools."""

    request: Request
    holder: Holder
    kv_tokens: int = 0


class AgainstBlockByBlock(RuleBasedStateMachine):
    """Requests with common prefixes are admitted, decode, end, are preempted and come back, in any order."""

    @initialize(blocks_per_id=st.integers(1, 3))
    def start(self, blocks_per_id: int) -> None:
        self.hash_tokens = blocks_per_id * BLOCK_TOKENS
        self.pool = PrefixCachingPool(BLOCKS, BLOCK_TOKENS, self.hash_tokens)
        self.reference = ReferencePool(BLOCKS, BLOCK_TOKENS, blocks_per_id)
        self.running: list[Pair] = []
        self.preempted: list[Pair] = []
        self.arrivals = 0

    @rule(prompt_tokens=st.integers(1, 20), family=st.integers(0, 2), shared=st.integers(0, 6), data=st.data())
    def arrive(self, prompt_tokens: int, family: int, shared: int, data: st.DataObject) -> None:
        index = self.arrivals
        self.arrivals += 1
        full = range(prompt_tokens // self.hash_tokens)
        ids = tuple(10 * family + at if at < shared else 1000 + 100 * index + at for at in full)
        self.admit(Pair(Request(index, 0.0, prompt_tokens, 1000, prefix_ids=ids), Holder(index, ids)), data)

    @precondition(lambda self: self.preempted)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(self.preempted))
        if self.admit(pair, data):
            self.preempted.remove(pair)

    def admit(self, pair: Pair, data: st.DataObject) -> bool:
        """Let a request in, its prompt in one chunk or two, if it fits; what is found and what fits must agree."""
        request, pool = pair.request, self.pool
        total = request.total_tokens
        match = pool.match(request)
        found = self.reference.find(pair.holder, total)
        assert match.tokens == min(len(found) * BLOCK_TOKENS, (total - 1) // BLOCK_TOKENS * BLOCK_TOKENS)
        fits = blocks_for(total, BLOCK_TOKENS) - match.blocks <= pool.free - match.idle_blocks
        assert fits != self.reference.lacks(pair.holder, total, found)
        if not fits:
            return False
        pool.hold(request, match)
        held = match.blocks
        for tokens in (data.draw(st.integers(match.tokens + 1, total)), total):
            pool.take(max(blocks_for(tokens, BLOCK_TOKENS) - held, 0))
            held = max(blocks_for(tokens, BLOCK_TOKENS), held)
            pool.computed(request, tokens)
            self.reference.allocate(pair.holder, tokens, found)
            found = []
        pair.kv_tokens = total
        request.generated_tokens += 1
        self.running.append(pair)
        return True

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 7))
    def decode(self, data: st.DataObject, tokens: int) -> None:
        pair = data.draw(st.sampled_from(self.running))
        grown = pair.kv_tokens + tokens
        blocks = blocks_for(grown, BLOCK_TOKENS) - blocks_for(pair.kv_tokens, BLOCK_TOKENS)
        if blocks > self.pool.free:
            return
        self.pool.take(blocks)
        self.reference.allocate(pair.holder, grown)
        pair.kv_tokens = grown
        pair.request.generated_tokens += tokens

    @precondition(lambda self: self.running)
    @rule(data=st.data(), resumable=st.booleans())
    def end_or_preempt(self, data: st.DataObject, resumable: bool) -> None:
        pair = data.draw(st.sampled_from(self.running))
        self.running.remove(pair)
        self.pool.release(pair.request, pair.kv_tokens, resumable=resumable)
        self.reference.release(pair.holder)
        if resumable:
            self.preempted.append(pair)

    @invariant()
    def as_many_are_free(self) -> None:
        assert self.pool.free == self.reference.free >= 0

    def teardown(self) -> None:
        for pair in self.running:
            self.pool.release(pair.request, pair.kv_tokens, resumable=False)
        assert self.pool.free == BLOCKS


TestAgainstBlockByBlock = AgainstBlockByBlock.TestCase
TestAgainstBlockByBlock.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
