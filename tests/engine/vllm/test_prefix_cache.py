"""The prefix cache: cases by hand, and random requests beside a pool that keeps every block as an object."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from l4sim.engine.blocks import Match, blocks_for
from l4sim.engine.request import Request
from l4sim.engine.vllm.prefix_cache import PrefixCachingPool
from tests.engine.vllm.reference import Holder, ReferencePool

NOTHING = Match(0, 0, 0)


def arriving(index: int, prompt_tokens: int, *shared: int, output_tokens: int = 100) -> Request:
    """A request whose first full blocks of 16 are named by ``shared``; the others are its own."""
    keys = [range(key, key + 1) for key in shared]
    own = (prompt_tokens + output_tokens) // 16 - len(shared)
    keys.append(range(1000 * (index + 1), 1000 * (index + 1) + own))
    return Request(index, 0.0, prompt_tokens, output_tokens, block_keys=tuple(keys))


def serve(pool: PrefixCachingPool, request: Request) -> int:
    """Compute all of a request's tokens but those found in the cache; returns how many were found."""
    match = pool.match(request)
    pool.hold(request, match)
    pool.take(blocks_for(request.total_tokens, pool.block_tokens) - match.blocks)
    pool.computed(request, request.total_tokens)
    return match.tokens


def finish(pool: PrefixCachingPool, request: Request) -> None:
    pool.release(request, request.total_tokens, request.total_tokens)


def test_a_prefix_is_found_by_others_while_its_maker_runs_and_after() -> None:
    # Blocks of 16: 40 tokens lie in 3 blocks, 2 of them full and shared.
    pool = PrefixCachingPool(10, 16)
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


def test_prompts_agree_as_far_as_their_leading_keys() -> None:
    pool = PrefixCachingPool(20, 16)
    maker = arriving(0, 64, 1, 2, 3, 4)
    serve(pool, maker)
    finish(pool, maker)
    assert pool.match(arriving(1, 64, 1, 2, 9, 4)).tokens == 32
    assert pool.match(arriving(2, 64, 9, 2, 3, 4)) == NOTHING


def test_key_0_is_a_prefix_like_any_other() -> None:
    pool = PrefixCachingPool(4, 16)
    maker = arriving(0, 20, 0)
    serve(pool, maker)
    finish(pool, maker)
    passer_by = arriving(1, 20, 5)
    serve(pool, passer_by)
    finish(pool, passer_by)
    assert pool.match(arriving(2, 20, 0)).tokens == 16


def test_the_block_of_a_prompt_s_last_token_is_computed_again_into_a_block_of_its_own() -> None:
    # All 32 tokens are cached; vLLM reuses the leading 16, since there must be a token to sample from.
    pool = PrefixCachingPool(10, 16)
    first, second = arriving(0, 32, 1, 2), arriving(1, 32, 1, 2)
    serve(pool, first)
    assert pool.match(second) == Match(tokens=16, blocks=1, idle_blocks=0)
    serve(pool, second)
    assert pool.free == 10 - 3


def test_a_full_block_is_found_as_soon_as_it_is_computed() -> None:
    pool = PrefixCachingPool(20, 16)
    maker = arriving(0, 60, 1, 2, 3)
    pool.take(3)
    pool.computed(maker, 40)
    assert pool.match(arriving(1, 60, 1, 2, 3)).tokens == 32
    pool.take(1)
    pool.computed(maker, 60)
    assert pool.match(arriving(2, 60, 1, 2, 3)) == Match(48, 3, 0)


def test_what_was_used_longest_ago_is_evicted_first() -> None:
    pool = PrefixCachingPool(3, 16)
    for index in (0, 1, 2):
        request = arriving(index, 16, index)
        serve(pool, request)
        finish(pool, request)
    again = arriving(3, 20, 0)
    serve(pool, again)
    # The second block of the 20 tokens evicts the oldest idle one, 1; 0 was used again, 2 came later.
    assert pool.match(arriving(4, 17, 1)) == NOTHING
    assert pool.match(arriving(5, 17, 2)).tokens == 16
    assert pool.match(arriving(6, 17, 0)).tokens == 16


def test_the_tail_of_a_context_is_evicted_before_its_head() -> None:
    pool = PrefixCachingPool(4, 16)
    maker = arriving(0, 64, 1, 2, 3, 4)
    serve(pool, maker)
    finish(pool, maker)
    pool.take(2)
    assert pool.match(arriving(1, 70, 1, 2, 3, 4)).tokens == 32


@pytest.mark.parametrize(("unhashed_first", "found"), [(True, 16), (False, 0)], ids=["0.32", "0.19"])
def test_freed_blocks_without_a_hash_are_the_next_to_be_taken_or_the_last(unhashed_first: bool, found: int) -> None:
    # Two blocks each, in all that there are: one is full, and one has a token and no hash.
    pool = PrefixCachingPool(4, 16, unhashed_first=unhashed_first)
    for request in [arriving(index, 17, index) for index in (0, 1)]:
        serve(pool, request)
        finish(pool, request)
    # In the order in which they were freed the next two are the first's.
    pool.take(2)
    assert pool.match(arriving(2, 17, 0)).tokens == found
    assert pool.match(arriving(3, 17, 1)).tokens == 16


def test_idle_blocks_of_a_match_count_as_taken() -> None:
    pool = PrefixCachingPool(4, 16)
    first, second = arriving(0, 32, 1, 2), arriving(1, 20, 1)
    serve(pool, first)
    serve(pool, second)
    finish(pool, first)
    # Block 1 is held by the second, block 2 is idle.
    assert pool.match(arriving(2, 40, 1, 2)) == Match(tokens=32, blocks=2, idle_blocks=1)
    assert pool.free == 2
    serve(pool, arriving(2, 40, 1, 2))
    assert pool.free == 0


def test_a_preempted_request_finds_its_own_blocks_prompt_and_answer() -> None:
    # 40 prompt tokens and 30 generated: 4 full blocks of 16, the first two of them the prompt's.
    pool = PrefixCachingPool(10, 16)
    request = arriving(0, 40, 1, 2)
    serve(pool, request)
    request.generated_tokens = 31
    pool.take(blocks_for(70, 16) - 3)
    pool.release(request, 70, 70)
    assert pool.free == 10
    assert pool.match(request) == Match(tokens=64, blocks=4, idle_blocks=4)
    # Nobody else's prompt goes on as the answer does: only the prompt's blocks are found.
    assert pool.match(arriving(1, 70, 1, 2, 3, 4)).tokens == 32


def test_what_is_not_known_to_be_computed_is_not_found_again() -> None:
    # The KV of 64 tokens is there, and the name of the last of them is not known yet.
    pool = PrefixCachingPool(10, 16)
    request = arriving(0, 40, 1, 2)
    serve(pool, request)
    request.generated_tokens = 25
    pool.take(1)
    pool.release(request, 64, 63)
    assert pool.match(request).tokens == 48


def test_a_next_turn_finds_the_answer_before_it() -> None:
    pool = PrefixCachingPool(10, 16)
    first = arriving(0, 20, output_tokens=44)
    serve(pool, first)
    pool.answers(first, lambda request: request.total_tokens)
    following = Request(1, 0.0, 70, 10, block_keys=first.block_keys)
    assert pool.match(following).tokens == 16
    # While it is decoded, as far as it is computed; and once it has ended.
    pool.take(1)
    first.generated_tokens = 30
    assert pool.match(following).tokens == 48
    pool.release(first, 50, 50)
    assert pool.match(following) == Match(tokens=48, blocks=3, idle_blocks=3)


def test_own_blocks_are_evicted_from_the_tail() -> None:
    pool = PrefixCachingPool(5, 16)
    request = arriving(0, 40, 1, 2)
    serve(pool, request)
    request.generated_tokens = 31
    pool.take(2)
    pool.release(request, 70, 70)
    # To go: the block begun, then the fourth, the third, and the prompt's second and first.
    found = []
    for _ in range(5):
        pool.take(1)
        found.append(pool.match(request).tokens)
    assert found == [64, 48, 32, 16, 0]


def test_a_prefix_that_two_compute_at_once_is_there_twice() -> None:
    pool = PrefixCachingPool(4, 16)
    first, second = arriving(0, 32, 1, 2), arriving(1, 32, 1, 2)
    pool.take(4)
    pool.computed(first, 32)
    pool.computed(second, 32)
    finish(pool, first)
    # The copy that was made first is the one that is hit, idle or not; when it is taken, the other is still there.
    assert pool.match(arriving(2, 40, 1, 2)) == Match(tokens=32, blocks=2, idle_blocks=2)
    pool.take(2)
    assert pool.match(arriving(2, 40, 1, 2)) == Match(tokens=32, blocks=2, idle_blocks=0)


def test_more_than_there_is_cannot_be_taken() -> None:
    pool = PrefixCachingPool(3, 16)
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

    @initialize(unhashed_first=st.booleans())
    def start(self, unhashed_first: bool) -> None:
        self.pool = PrefixCachingPool(BLOCKS, BLOCK_TOKENS, unhashed_first=unhashed_first)
        self.reference = ReferencePool(BLOCKS, BLOCK_TOKENS, unhashed_first=unhashed_first)
        self.running: list[Pair] = []
        self.preempted: list[Pair] = []
        self.conversations: list[list[range]] = []
        self.arrivals = 0

    @rule(prompt_tokens=st.integers(1, 20), cuts=st.lists(st.integers(0, 4), max_size=3), of=st.data())
    def arrive(self, prompt_tokens: int, cuts: list[int], of: st.DataObject) -> None:
        """A request goes through common runs of 4 blocks, leaves the last after some, and goes on alone."""
        index = self.arrivals
        self.arrivals += 1
        runs: list[range] = []
        for depth, cut in enumerate(cuts):
            run = 100 * depth + 10 * of.draw(st.integers(0, 1)) if depth else 0
            runs.append(range(run, run + (4 if depth + 1 < len(cuts) else cut)))
        if cuts and cuts[-1] == 4 and self.conversations and of.draw(st.booleans()):
            # The next turn of somebody's, whose answer it goes on from.
            runs = of.draw(st.sampled_from(self.conversations))
            runs = [*runs[:-1], runs[-1][: of.draw(st.integers(1, 8))]]
        runs.append(range(1000 * (index + 1), 1000 * (index + 1) + 500 - sum(map(len, runs))))
        self.conversations.append(runs)
        request = Request(index, 0.0, prompt_tokens, 1000 - prompt_tokens, block_keys=tuple(runs))
        self.admit(Pair(request, Holder(tuple(chain(*runs)))), of)

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
        assert (match.blocks, match.tokens) == (len(found), len(found) * BLOCK_TOKENS)
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
            self.reference.cache(pair.holder, tokens)
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
    @rule(data=st.data(), resumable=st.booleans(), lag=st.integers(0, 1))
    def end_or_preempt(self, data: st.DataObject, resumable: bool, lag: int) -> None:
        pair = data.draw(st.sampled_from(self.running))
        self.running.remove(pair)
        hashed = max(pair.kv_tokens - lag, len(pair.request.held) * BLOCK_TOKENS)
        self.pool.release(pair.request, pair.kv_tokens, hashed)
        self.reference.cache(pair.holder, hashed)
        self.reference.release(pair.holder)
        if resumable:
            self.preempted.append(pair)

    @invariant()
    def as_many_are_free(self) -> None:
        assert self.pool.free == self.reference.free >= 0
        assert self.pool.violations() == []

    def teardown(self) -> None:
        """When all have ended, what is left of everybody's context goes in the same order."""
        for pair in self.running:
            self.pool.release(pair.request, pair.kv_tokens, pair.kv_tokens)
            self.reference.cache(pair.holder, pair.kv_tokens)
            self.reference.release(pair.holder)
        assert self.pool.free == BLOCKS
        keys = [Holder(tuple(chain(*runs))) for runs in self.conversations]
        asking = [Request(0, 0.0, 999, 1, block_keys=tuple(runs)) for runs in self.conversations]
        for _ in range(BLOCKS):
            found = [len(self.reference.find(holder, 999)) for holder in keys]
            assert [self.pool.match(request).blocks for request in asking] == found
            self.pool.take(1)
            self.reference.allocate(Holder(()), BLOCK_TOKENS)


TestAgainstBlockByBlock = AgainstBlockByBlock.TestCase
TestAgainstBlockByBlock.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
