"""The decoding set: cases by hand, and every answer against a model that counts each token of each request."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from l4sim.engine.decoding import DecodingSet
from l4sim.engine.request import NO_SLOT, Request

ANY = 10**6


def decoding_request(index: int, context_tokens: int, remaining_tokens: int) -> Request:
    """A request whose prompt is done and whose first token is sampled, with that many more to come."""
    request = Request(index, 0.0, context_tokens, remaining_tokens + 1)
    request.generated_tokens = 1
    return request


def decoding_set(*contexts_and_remaining: tuple[int, int], block_tokens: int = 16) -> DecodingSet:
    decoding = DecodingSet(64, block_tokens)
    for index, (context, remaining) in enumerate(contexts_and_remaining):
        decoding.join(decoding_request(index, context, remaining), context)
    return decoding


def test_every_request_gains_a_token_per_iteration() -> None:
    decoding = decoding_set((10, 50), (300, 50))
    assert decoding.contexts_next().tolist() == [11, 301]
    decoding.advance(5)
    assert decoding.contexts_next().tolist() == [16, 306]
    assert [decoding.context_tokens(request) for request in decoding.requests] == [15, 305]
    assert decoding.context_sum == 320


def test_a_full_last_block_asks_for_one_more() -> None:
    # Contexts 16, 20 and 31: their next tokens are the 17th, 21st and 32nd, so only the first opens a block.
    decoding = decoding_set((16, 50), (20, 50), (31, 50))
    assert decoding.blocks_needed(1) == 1
    # In the second iteration the third opens one (its 33rd token); by the thirteenth the second has (its 33rd).
    assert [decoding.blocks_needed(count) for count in (2, 12, 13, 16, 17)] == [2, 2, 3, 3, 4]


def test_quiet_until_the_first_ends() -> None:
    assert decoding_set((100, 30), (200, 12)).quiet_iterations(ANY) == 12


def test_quiet_until_no_block_is_free() -> None:
    # Contexts 10 and 14 in blocks of 16 open blocks in iterations 3 (14 + 3 = 17), 7, 19 and 23. With one block free,
    # iterations 1 to 6 can run; with two, 1 to 18.
    decoding = decoding_set((10, 500), (14, 500))
    assert [decoding.quiet_iterations(free) for free in (0, 1, 2, 3)] == [2, 6, 18, 22]


def test_a_boundary_is_reported_once_and_ends_the_quiet() -> None:
    decoding = decoding_set((10, 50), (15, 50))
    decoding.watch(20)
    assert decoding.quiet_iterations(ANY) == 5
    _, crossed = decoding.advance(5)
    assert [request.index for request in crossed] == [1]
    assert decoding.quiet_iterations(ANY) == 5
    _, crossed = decoding.advance(5)
    assert [request.index for request in crossed] == [0]
    assert decoding.quiet_iterations(ANY) == 40


def test_a_request_that_ends_at_the_boundary_does_not_cross_it() -> None:
    decoding = decoding_set((10, 5))
    decoding.watch(15)
    finished, crossed = decoding.advance(5)
    assert [request.index for request in finished] == [0]
    assert crossed == []


def test_a_new_boundary_forgets_the_old_one_and_counts_those_beyond_it() -> None:
    decoding = decoding_set((10, 50), (30, 50))
    decoding.watch(12)
    decoding.watch(25)
    _, crossed = decoding.advance(1)
    assert [request.index for request in crossed] == [1]
    assert decoding.quiet_iterations(ANY) == 14
    decoding.watch(None)
    assert decoding.quiet_iterations(ANY) == 49


def test_who_leaves_takes_along_what_was_generated() -> None:
    decoding = decoding_set((100, 30), (200, 40), (300, 50))
    first, second, third = list(decoding.requests)
    decoding.advance(7)
    assert decoding.leave(first) == 107
    assert (first.generated_tokens, first.slot) == (8, NO_SLOT)
    # The last of the batch moves into the hole.
    assert decoding.requests == [third, second]
    assert decoding.contexts_next().tolist() == [308, 208]
    assert decoding.find(first.index) is None
    assert decoding.find(second.index) is second


def test_a_request_that_left_and_came_back_ends_once() -> None:
    # One token is in hand and four are to come: after two iterations two are left, wherever the pause was.
    decoding = decoding_set((10, 4))
    (request,) = list(decoding.requests)
    decoding.advance(2)
    decoding.leave(request)
    assert decoding.advance(5) == ([], [])
    decoding.join(request, 12)
    assert decoding.quiet_iterations(ANY) == 2
    assert decoding.advance(2) == ([request], [])
    assert (len(decoding), request.generated_tokens) == (0, 5)


def test_the_spread_of_lengths_stays_exact_over_a_billion_iterations() -> None:
    decoding = DecodingSet(64, 16)
    decoding.iteration = 10**9
    for index, context in enumerate((10, 20, 60)):
        decoding.join(decoding_request(index, context, 50), context)
    assert decoding.context_std == pytest.approx(statistics.pstdev((10, 20, 60)), rel=1e-12)


@dataclass
class Counted:
    """A request of the model: its tokens, counted one by one."""

    request: Request
    context_tokens: int
    remaining_tokens: int
    watched: bool = False


class AgainstCountingTokens(RuleBasedStateMachine):
    """Joins, leaves, boundaries and iterations in any order."""

    @initialize(block_tokens=st.sampled_from([1, 3, 4]))
    def start(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.decoding = DecodingSet(64, block_tokens)
        self.counted: list[Counted] = []
        self.boundary: int | None = None
        self.joins = 0

    @precondition(lambda self: len(self.counted) < 6)
    @rule(context=st.integers(1, 20), remaining=st.integers(1, 20))
    def join(self, context: int, remaining: int) -> None:
        request = decoding_request(self.joins, context, remaining)
        self.joins += 1
        self.decoding.join(request, context)
        self.counted.append(Counted(request, context, remaining, self.boundary is not None))

    @precondition(lambda self: self.counted)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        counted = data.draw(st.sampled_from(self.counted))
        self.counted.remove(counted)
        assert self.decoding.leave(counted.request) == counted.context_tokens
        assert counted.request.generated_tokens == counted.request.output_tokens - counted.remaining_tokens

    @rule(boundary=st.none() | st.integers(1, 40))
    def watch(self, boundary: int | None) -> None:
        self.decoding.watch(boundary)
        self.boundary = boundary
        for counted in self.counted:
            counted.watched = boundary is not None

    @precondition(lambda self: self.counted)
    @rule(data=st.data(), free_blocks=st.integers(0, 12))
    def advance(self, data: st.DataObject, free_blocks: int) -> None:
        quiet = self.quiet_iterations(free_blocks)
        assert self.decoding.quiet_iterations(free_blocks) == quiet
        iterations = data.draw(st.integers(1, quiet))
        finished, crossed = self.decoding.advance(iterations)
        for counted in self.counted:
            counted.context_tokens += iterations
            counted.remaining_tokens -= iterations
        ended = [counted for counted in self.counted if counted.remaining_tokens == 0]
        self.counted = [counted for counted in self.counted if counted.remaining_tokens]
        reached = [c for c in self.counted if c.watched and self.reaches(c, 0)]
        for counted in reached:
            counted.watched = False
        assert {request.index for request in finished} == {counted.request.index for counted in ended}
        assert {request.index for request in crossed} == {counted.request.index for counted in reached}

    def reaches(self, counted: Counted, iterations: int) -> bool:
        return self.boundary is not None and counted.context_tokens + iterations >= self.boundary

    def opened(self, iteration: int) -> int:
        """Blocks that the iteration-th iteration from now opens: a token behind a full block."""
        return sum((counted.context_tokens + iteration - 1) % self.block_tokens == 0 for counted in self.counted)

    def quiet_iterations(self, free_blocks: int) -> int:
        done = 1
        while True:
            free_blocks -= self.opened(done + 1)
            if free_blocks < 0:
                return done
            for counted in self.counted:
                if counted.remaining_tokens <= done or (counted.watched and self.reaches(counted, done)):
                    return done
            done += 1

    @invariant()
    def counts_agree(self) -> None:
        contexts = [counted.context_tokens for counted in self.counted]
        assert len(self.decoding) == len(contexts)
        assert self.decoding.context_sum == sum(contexts)
        assert sorted(self.decoding.contexts_next()) == sorted(context + 1 for context in contexts)
        assert self.decoding.context_std == pytest.approx(statistics.pstdev(contexts) if contexts else 0.0)

    @invariant()
    def blocks_agree(self) -> None:
        assert self.decoding.blocks_next() == self.opened(1)
        for iterations in (0, 1, 2, 5, 11):
            expected = sum(self.opened(iteration) for iteration in range(1, iterations + 1))
            assert self.decoding.blocks_needed(iterations) == expected

    @invariant()
    def each_is_where_it_should_be(self) -> None:
        for counted in self.counted:
            assert self.decoding.find(counted.request.index) is counted.request
            assert self.decoding.context_tokens(counted.request) == counted.context_tokens
            assert self.decoding.requests[counted.request.slot] is counted.request


TestAgainstCountingTokens = AgainstCountingTokens.TestCase
TestAgainstCountingTokens.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
