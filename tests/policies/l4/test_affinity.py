"""Prefix affinity: where prefixes were sent, what following one costs everybody, and when it is followed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.policies.l4.affinity import Affinity, Prices
from l4sim.policies.l4.router import L4Router
from tests.policies.conftest import View, arrival
from tests.policies.l4.protocol import THREE_STAGES

FREE = Prices(prompt_token_s=0.0, prompt_pair_s=0.0, request_s=0.0, context_token_s=0.0, output_tokens=10.0)
PROMPTS = replace(FREE, prompt_token_s=0.001)
ID_TOKENS = 16


def affinity(prices: Prices = PROMPTS, *, capacity_tokens: int = 10_000) -> Affinity:
    return Affinity(prices, ID_TOKENS, capacity_tokens)


class TestHolder:
    def test_nobody_holds_what_was_never_sent(self):
        assert affinity().holder((1, 2)) == (-1, 0)
        assert affinity().holder(()) == (-1, 0)

    def test_the_longest_known_part_of_a_prefix_counts_and_who_was_sent_it_last(self):
        known = affinity()
        known.sent((1, 2, 3), 0)
        known.sent((1, 2), 1)
        assert known.holder((1, 2, 3, 4, 5)) == (0, 3 * ID_TOKENS)
        assert known.holder((1, 2, 9)) == (1, 2 * ID_TOKENS)
        assert known.holder((1,)) == (1, ID_TOKENS)
        assert known.holder((9,)) == (-1, 0)

    def test_what_two_capacities_of_others_came_after_is_forgotten(self):
        known = affinity(capacity_tokens=4 * ID_TOKENS)
        known.sent((1, 2), 0)
        known.sent((11, 12, 13), 1)
        assert known.holder((1, 2)) == (0, 2 * ID_TOKENS), "five ids are more than four: from now on they are old"
        known.sent((21, 22, 23), 1)
        assert known.holder((1, 2)) == (0, 2 * ID_TOKENS)
        known.sent((31, 32), 1)
        assert known.holder((1, 2)) == (-1, 0)
        assert known.holder((21, 22)) == (1, 2 * ID_TOKENS)

    def test_what_is_sent_again_is_kept(self):
        known = affinity(capacity_tokens=4 * ID_TOKENS)
        for start in (10, 20, 30, 40):
            known.sent((1, 2), 0)
            known.sent((start, start + 1, start + 2), 1)
        assert known.holder((1, 2)) == (0, 2 * ID_TOKENS)


class TestPrice:
    """Of a prompt of 100 tokens, part by part."""

    REQUEST = arrival(100)

    def test_on_an_idle_instance_only_what_is_to_be_computed_costs(self):
        assert affinity().price(self.REQUEST, View(), 0) == pytest.approx(0.100)
        assert affinity().price(self.REQUEST, View(), 60) == pytest.approx(0.040)

    def test_prompts_before_it_are_waited_for(self):
        assert affinity().price(self.REQUEST, View(pending_prompt_tokens=500), 60) == pytest.approx(0.540)

    def test_each_of_the_others_pauses_as_long_as_the_prompt_takes(self):
        assert affinity().price(self.REQUEST, View(running=3), 60) == pytest.approx(4 * 0.040)

    def test_a_token_of_a_prompt_attends_to_what_is_cached_before_it_and_to_half_of_what_is_new(self):
        pairs = affinity(replace(FREE, prompt_pair_s=1e-6))
        assert pairs.price(self.REQUEST, View(), 60) == pytest.approx(40 * (60 + 20) * 1e-6)
        assert pairs.price(self.REQUEST, View(running=1), 60) == pytest.approx(2 * 40 * (60 + 20) * 1e-6)

    def test_every_request_slows_every_other_one_for_as_long_as_an_answer_takes(self):
        # 10 iterations, in which it waits for the 3 others, and each of them for it.
        requests = affinity(replace(FREE, request_s=0.002))
        assert requests.price(self.REQUEST, View(running=3), 100) == pytest.approx(10 * (3 + 3) * 0.002)

    def test_it_reads_their_context_and_each_of_them_its_own(self):
        contexts = affinity(replace(FREE, context_token_s=1e-5))
        view = View(running=3, context_tokens=7000)
        assert contexts.price(self.REQUEST, view, 100) == pytest.approx(10 * (7000 + 3 * 100) * 1e-5)


class TestRouter:
    """Instance 0 is the lowest stage's, 1 and 2 the middle one's, 3 the highest one's; the prompt belongs in the
    middle, and its first turn was there or elsewhere."""

    FIRST_TURN = arrival(90, prefix_ids=(1, 2, 3, 4, 5))
    SECOND_TURN = arrival(500, prefix_ids=(1, 2, 3, 4, 5, 6))
    IDLE = (View(0), View(1), View(2), View(3))

    def router(self, prices: Prices = PROMPTS) -> L4Router:
        router = L4Router(THREE_STAGES, affinity(prices), spill=False)
        assert router.route(self.FIRST_TURN, self.IDLE) == 0
        return router

    def test_a_prompt_follows_its_prefix_where_that_costs_less(self):
        assert self.router().route(self.SECOND_TURN, self.IDLE) == 0, "420 tokens to compute are less than 500"

    def test_a_prompt_goes_by_its_length_where_that_costs_less(self):
        # 420 tokens for it and the other one there are more than 500 for it alone.
        assert self.router().route(self.SECOND_TURN, (View(0, running=1), *self.IDLE[1:])) == 1
        # And so are 420 after 100 that wait.
        assert self.router().route(self.SECOND_TURN, (View(0, pending_prompt_tokens=100), *self.IDLE[1:])) == 1

    def test_at_the_same_price_a_prompt_goes_by_its_length(self):
        assert self.router(FREE).route(self.SECOND_TURN, self.IDLE) == 1

    def test_without_a_prefix_in_common_a_prompt_goes_by_its_length(self):
        router = self.router()
        assert router.route(arrival(500, prefix_ids=(8, 9)), self.IDLE) == 1
        assert router.route(arrival(500), self.IDLE) == 1

    def test_a_prefix_is_where_its_last_prompt_was_sent(self):
        router = self.router()
        busy = (View(0, running=9), View(1, running=2), View(2), View(3))
        assert router.route(self.SECOND_TURN, busy) == 2
        assert router.route(arrival(90, prefix_ids=(1, 2, 3, 4, 5)), self.IDLE) == 2, "which has all of it by now"

    def test_whoever_has_died_holds_nothing(self):
        router = self.router()
        assert router.route(self.SECOND_TURN, self.IDLE[1:]) == 0, "which is instance 1"
