"""Bids within and across stages: who answers, what moves, and what keeps it from coming back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.policies.agent import Migrate, Send, SetTimer
from l4sim.policies.l4.balance import PATIENCE_S, PROMISED_S, SETTLED_S, Balance, Decide
from l4sim.policies.l4.load import PROMPT_TOKENS, queued_load
from l4sim.policies.l4.messages import Bid, Slack
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.views import DecodingRequest, QueuedRequest
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, moved, sent, two_stages


def balance(instance: int, plan=THREE_STAGES, *, within: bool = True, across: bool = True, ranges=None) -> Balance:
    rng = np.random.default_rng(instance)
    return Balance(instance, ranges or Ranges(plan), rng, within=within, across=across)


def busy(queued_prompts=(), decoding=(), *, instance: int = 1) -> View:
    """An instance that decodes requests of these contexts and has these prompts queued, numbered from 0 and 100."""
    return View(
        instance,
        running=len(decoding),
        waiting=len(queued_prompts),
        pending_prompt_tokens=sum(queued_prompts),
        batch=tuple(DecodingRequest(number, context) for number, context in enumerate(decoding)),
        queue=tuple(QueuedRequest(100 + number, prompt, 0) for number, prompt in enumerate(queued_prompts)),
    )


def asked(bidder: Balance, own: View) -> list[int]:
    return [send.to for send in sent(bidder.bid(own))]


# Bids.


def test_a_loaded_instance_bids_to_a_few_peers_of_its_stage():
    assert balance(1).bid(busy(decoding=[50] * 4)) == (
        Send(2, Bid(1, 4.0, False)),
        SetTimer(PATIENCE_S, Decide(1)),
    )
    assert len(set(asked(balance(0, two_stages(9, 1)), busy(decoding=[50] * 4)))) == 3
    assert balance(1).bid(busy(decoding=[50] * 2)) == (), "too few requests to be worth it"


def test_one_bid_is_out_at_a_time():
    bidder = balance(1)
    assert bidder.bid(busy(decoding=[50] * 4))
    assert bidder.bid(busy(decoding=[50] * 4)) == ()


def test_only_what_waits_and_finds_nobody_within_the_stage_is_bid_across_to_both_sides():
    bidder, own = balance(1), busy([50], [50] * 4)
    assert asked(bidder, own) == [2]
    bidder.decide(1, own, 0.0)
    assert bidder.bid(own)[:2] == (
        Send(0, Bid(2, own.running + queued_load(50), True)),
        Send(3, Bid(2, 5 + 50 / 4096, True)),
    )
    bidder.decide(2, own, 0.0)
    assert asked(bidder, own) == [2], "then within again"
    bidder.decide(3, own, 0.0)
    assert asked(bidder, busy(decoding=[50] * 9)) == [2], "nothing waits any more"


def bid_times(bidder: Balance, own: View, count: int) -> list[int]:
    """At which of so many bid times a bid is sent; nobody answers any."""
    made = []
    for time in range(count):
        for bid in sent(bidder.bid(own)):
            made.append(time)
            bidder.decide(bid.message.round, own, 0.0)
    return made


def test_bids_that_nobody_answers_become_rarer():
    assert bid_times(balance(1), busy(decoding=[50] * 6), 16) == [0, 2, 6, 10, 14], "1, 3, 3, ... are let pass"


def test_something_that_waits_or_more_load_is_bid_for_at_once():
    bidder = balance(1)
    assert bid_times(bidder, busy(decoding=[50] * 6), 3) == [0, 2]
    assert asked(bidder, busy(decoding=[50] * 8)) == []
    assert asked(bidder, busy(decoding=[50] * 9)) == [2], "3 requests more than at the last bid"
    assert len(bid_times(balance(1, across=False), busy([50], [50] * 4), 10)) == 10


def test_an_answer_ends_the_pauses():
    bidder, own = balance(1), busy(decoding=[50] * 6)
    assert bid_times(bidder, own, 7) == [0, 2, 6]
    assert [asked(bidder, own) for _ in range(4)] == [[], [], [], [2]]
    bidder.collect(2, Slack(4, 0.0))
    bidder.decide(4, own, 0.0)
    assert asked(bidder, own) == [2]


def test_after_an_answer_within_the_stage_nothing_is_bid_across():
    bidder, own = balance(1), busy([50], [50] * 4)
    bidder.bid(own)
    bidder.collect(2, Slack(1, 0.0))
    bidder.decide(1, own, 0.0)
    assert asked(bidder, own) == [2]


def test_with_no_other_stage_left_every_second_bid_is_still_made_within():
    ranges = Ranges(two_stages(2, 1))
    ranges.remove(2)
    bidder, own = balance(0, ranges=ranges), busy([50], [50] * 4, instance=0)
    rounds = []
    for _ in range(6):
        bids = sent(bidder.bid(own))
        rounds.append([bid.to for bid in bids])
        for bid in bids:
            bidder.decide(bid.message.round, own, 0.0)
    assert rounds == [[1], []] * 3


def test_a_dead_stage_is_bid_past():
    ranges = Ranges(THREE_STAGES)
    for instance in (1, 2):
        ranges.remove(instance)
    bidder, own = balance(0, ranges=ranges), busy([50], [50] * 4, instance=0)
    assert asked(bidder, own) == [], "nobody within"
    assert asked(bidder, own) == [3]


def test_a_small_stage_beside_a_large_one_is_not_flooded_with_bids():
    plan = two_stages(200, 3)
    across = 0
    for instance in range(200):
        bidder, own = balance(instance, plan), busy([50], [50] * 4, instance=instance)
        bidder.bid(own)
        bidder.decide(1, own, 0.0)
        across += asked(bidder, own) == [200, 201, 202]
    assert 1 <= across <= 10, "3 of 200 are expected to"


def test_parts_that_are_left_out_are_not_bid_for():
    own = busy([50], [50] * 4)
    within = balance(1, across=False)
    for round_ in (1, 2, 3):
        assert asked(within, own) == [2]
        within.decide(round_, own, 0.0)
    assert asked(balance(1, within=False), own) == [0, 3]
    assert asked(balance(1, within=False, across=False), own) == []


# Answers.


@pytest.mark.parametrize(
    ("running", "across", "answers"),
    [(7, False, True), (8, False, False), (4, True, True), (5, True, False)],
)
def test_a_peer_answers_well_below_the_bidder_s_load_and_further_below_across_stages(running, across, answers):
    instructions = balance(2).answer(1, Bid(4, 10.0, across), View(2, running=running), 0.0)
    assert instructions == ((Send(1, Slack(4, float(running))),) if answers else ())


def test_a_peer_with_a_queue_or_hardly_a_gap_says_nothing():
    assert balance(2).answer(1, Bid(1, 10.0, False), View(2, waiting=1), 0.0) == ()
    assert balance(2).answer(1, Bid(1, 2.9, False), View(2), 0.0) == ()


def test_what_one_bidder_may_move_is_load_to_the_others_until_it_must_have_come():
    peer = balance(0, two_stages(9, 1))
    idle = View(0)
    assert peer.answer(1, Bid(1, 10.0, False), idle, 0.0) == (Send(1, Slack(1, 0.0)),)
    assert peer.answer(2, Bid(1, 10.0, False), idle, 0.01) == (Send(2, Slack(1, 5.0)),), "half the gap of 10 is taken"
    assert peer.answer(3, Bid(1, 10.0, False), idle, 0.02) == (), "5 + 2.5"
    assert peer.answer(2, Bid(1, 10.0, False), idle, 0.03) == (Send(2, Slack(1, 5.0)),), "the same bid again"
    assert peer.answer(3, Bid(1, 10.0, False), idle, 0.03 + PROMISED_S) == (Send(3, Slack(1, 0.0)),)


# Moves.


def decision(own: View, slack: float, *, bidder: Balance | None = None, now_s: float = 0.0) -> list[int]:
    bidder = bidder or balance(1)
    [bid, *_] = sent(bidder.bid(own))
    bidder.collect(2, Slack(bid.message.round, slack))
    return moved(bidder.decide(bid.message.round, own, now_s))


def test_queued_requests_go_first_from_the_tail_until_half_the_gap_is_gone():
    # A load of 4 + 4 queued ones of 1 + 1/4; the gap to 2 is 7: two of 1.25 and then no third one fit into 3.5.
    own = busy([PROMPT_TOKENS // 4] * 4, [50] * 4)
    assert decision(own, 2.0) == [103, 102]


def test_a_queued_request_too_large_for_the_gap_is_passed_over():
    assert decision(busy([100, PROMPT_TOKENS * 5, 100], [50] * 4), 9.0) == [102]


def test_with_nothing_queued_the_longest_decoding_request_goes():
    assert decision(busy(decoding=[50, 90, 70, 60]), 0.0) == [1]


def test_the_least_loaded_of_those_who_answer_is_moved_to():
    bidder, own = balance(0, two_stages(4, 1)), busy(decoding=[50] * 8, instance=0)
    bidder.bid(own)
    for peer, load in ((1, 2.0), (3, 1.0), (3, 1.0), (2, 1.0)):
        bidder.collect(peer, Slack(1, load))
    assert bidder.decide(1, own, 0.0) == [Migrate(7, 2, "rebalance")], "and of equal requests the latest goes"


def test_answers_to_an_earlier_bid_and_late_timers_move_nothing():
    bidder, own = balance(1), busy(decoding=[50] * 8)
    bidder.bid(own)
    assert bidder.decide(1, own, 0.0) == ()
    bidder.bid(own)
    bidder.collect(2, Slack(1, 0.0))
    assert bidder.decide(1, own, 0.0) == ()
    assert bidder.decide(2, own, 0.0) == ()


def test_what_has_become_less_since_the_bid_is_not_moved():
    bidder = balance(1)
    bidder.bid(busy([100] * 8))
    bidder.collect(2, Slack(1, 4.0))
    assert bidder.decide(1, busy([100] * 4), 0.0) == []


def test_a_request_that_has_come_stays_for_a_while():
    bidder, own = balance(1), busy([100], [50, 90, 70, 60])
    for request in (1, 100):
        bidder.joined(request, 3.0)
    assert bidder.settled_in_s(1, 4.0) == SETTLED_S - 1
    assert decision(own, 0.0, bidder=bidder, now_s=4.0) == [2], "the longest of the others"
    assert bidder.settled_in_s(1, 3.0 + SETTLED_S) == 0
    assert decision(own, 0.0, bidder=bidder, now_s=3.0 + SETTLED_S) == [100]


def test_a_request_that_is_moving_is_not_moved_twice():
    bidder, own = balance(1), busy(decoding=[50, 90, 70, 60])
    assert decision(own, 0.0, bidder=bidder) == [1]
    assert decision(own, 0.0, bidder=bidder) == [2]
    assert bidder.ended(1)
    assert not bidder.ended(1), "that was another part's migration"
    assert decision(own, 0.0, bidder=bidder) == [1]


def test_what_half_of_is_cached_here_stays():
    queue = (QueuedRequest(100, 80, 40), QueuedRequest(101, 80, 39))
    assert decision(View(1, running=4, waiting=2, queue=queue), 0.0) == [101]
    batch = (DecodingRequest(1, 90, 45), DecodingRequest(2, 80, 39))
    assert decision(View(1, running=4, batch=batch), 0.0) == [2]


# No ping-pong.

prompts = st.lists(st.integers(1, 3 * PROMPT_TOKENS), max_size=30)


@pytest.mark.slow
@given(st.lists(prompts, min_size=1, max_size=5), st.integers(0, 30))
def test_the_gap_between_the_peer_and_who_bids_to_it_never_changes_sign(queues, running):
    """Several bid to one peer at the same moment, and all that they move comes."""
    count = len(queues)
    plan = two_stages(count + 1, 1)
    peer, idle = balance(count, plan), View(count, running=running)
    bidders = [balance(n, plan) for n in range(count)]
    views = [busy(queue, [50] * 4, instance=n) for n, queue in enumerate(queues)]
    loads = [4 + sum(map(queued_load, queue)) for queue in queues]
    peer_load = float(running)
    left = []
    for number, (bidder, own) in enumerate(zip(bidders, views, strict=True)):
        [bid, *_] = sent(bidder.bid(own))
        answers = sent(peer.answer(number, bid.message, idle, 0.001 * number))
        for answer in answers:
            bidder.collect(count, answer.message)
        gone = moved(bidder.decide(bid.message.round, own, 0.03))
        size = sum(queued_load(queues[number][request - 100]) if request >= 100 else 1.0 for request in gone)
        peer_load += size
        if gone:
            left.append(loads[number] - size)
    assert not left or peer_load <= max(left) + 1e-9
