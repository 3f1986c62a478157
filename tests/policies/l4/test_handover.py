"""Asks, offers, reservations and retries of a request that has outgrown its stage."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.policies.agent import Migrate, Send, SetTimer
from l4sim.policies.l4.handover import KEPT_S, PATIENCE_S, RETRY_S, Choose, Handover, Retry
from l4sim.policies.l4.messages import Ask, Decline, Offer
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.views import DecodingRequest
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, sent, two_stages

GROWN = View(batch=(DecodingRequest(7, 100),))


def handover(instance: int = 0, plan=THREE_STAGES) -> Handover:
    return Handover(instance, Ranges(plan), np.random.default_rng(0))


# The source.


def test_the_instances_of_the_next_stage_are_asked():
    assert handover().begin(7, GROWN) == (Send(1, Ask(7, 100)), Send(2, Ask(7, 100)), SetTimer(PATIENCE_S, Choose(7)))


def test_the_least_loaded_that_offers_is_migrated_to_and_the_others_are_declined():
    source = handover()
    source.begin(7, GROWN)
    assert source.collect(1, Offer(7, 3.0)) == ()
    assert source.collect(2, Offer(7, 1.0)) == (Send(1, Decline(7)), Migrate(7, 2, "handover")), "all have answered"
    assert source.choose(7) == (), "the timer comes too late"


def test_of_equal_offers_the_lower_instance_s_is_taken():
    source = handover()
    source.begin(7, GROWN)
    source.collect(2, Offer(7, 1.0))
    assert source.collect(1, Offer(7, 1.0)) == (Send(2, Decline(7)), Migrate(7, 1, "handover"))


def test_who_does_not_answer_in_time_is_done_without():
    source = handover()
    source.begin(7, GROWN)
    source.collect(1, Offer(7, 3.0))
    assert source.choose(7) == (Migrate(7, 1, "handover"),)
    assert source.collect(2, Offer(7, 1.0)) == ()


def test_an_offer_that_comes_twice_counts_once():
    source = handover()
    source.begin(7, GROWN)
    assert source.collect(1, Offer(7, 3.0)) == source.collect(1, Offer(7, 3.0)) == ()


def test_nothing_is_asked_for_a_request_that_has_gone_or_belongs_here_or_is_asked_for_already():
    source = handover()
    assert source.begin(8, GROWN) == ()
    assert source.begin(7, View(batch=(DecodingRequest(7, 99),))) == ()
    assert source.begin(7, GROWN)
    assert source.begin(7, GROWN) == ()


def test_without_anybody_above_it_stays():
    ranges = Ranges(two_stages(1, 1))
    ranges.remove(1)
    assert Handover(0, ranges, np.random.default_rng(0)).begin(7, GROWN) == ()


def test_each_time_nobody_offers_twice_as_many_are_asked_after_twice_the_pause_until_all_are():
    source = handover(plan=two_stages(1, 20))
    asked, pauses = [], []
    for _ in range(5):
        peers = [ask.to for ask in sent(source.begin(7, GROWN))]
        assert len(set(peers)) == len(peers)
        [(pause_s, again)] = source.choose(7)
        assert again == Retry(7)
        asked.append(len(peers))
        pauses.append(pause_s / RETRY_S)
    assert asked == [2, 4, 8, 16, 20]
    assert pauses == [1, 2, 4, 8, 10], "as many asks a second as at first"


def test_a_migration_that_fails_is_tried_again_and_one_that_works_is_forgotten():
    source = handover(plan=two_stages(1, 20))
    source.begin(7, GROWN)
    source.collect(1, Offer(7, 1.0))
    source.choose(7)
    assert source.ended(7, False) == (SetTimer(RETRY_S, Retry(7)),)
    assert len(sent(source.begin(7, GROWN))) == 4
    source.collect(1, Offer(7, 1.0))
    source.choose(7)
    assert source.ended(7, True) == ()
    assert len(sent(source.begin(7, GROWN))) == 2


@pytest.mark.parametrize("gone", [True, False])
def test_offers_for_a_request_that_has_gone_meanwhile_come_to_nothing(gone):
    source = handover()
    source.begin(7, GROWN)
    assert (source.begin(7, View()) if gone else source.ended(7, True)) == ()
    assert source.collect(1, Offer(7, 1.0)) == source.collect(2, Offer(7, 1.0)) == ()
    assert source.choose(7) == ()


# The destination. Ten blocks of 16 hold 160 tokens; a request of 100 wants 125.

ROOM = View(1, running=5, kv_blocks_free=10)


def test_whoever_has_room_offers_its_load():
    assert handover(1).answer(0, Ask(7, 100), ROOM, 0.0) == (Send(0, Offer(7, 5.0)),)
    assert handover(1).answer(0, Ask(7, 129), ROOM, 0.0) == (), "161 tokens are wanted"


def test_what_is_offered_is_kept_from_others_and_counts_as_load():
    member = handover(1)
    member.answer(0, Ask(7, 30), ROOM, 0.0)
    # 130 tokens are left.
    assert member.answer(0, Ask(8, 105), ROOM, 0.0) == ()
    assert member.answer(0, Ask(9, 100), ROOM, 0.0) == (Send(0, Offer(9, 6.0)),)


def test_the_same_ask_again_gets_the_same_offer_again():
    member = handover(1)
    assert member.answer(0, Ask(7, 100), ROOM, 0.0) == member.answer(0, Ask(7, 100), ROOM, 0.1)


@pytest.mark.parametrize("released", [True, False])
def test_a_reservation_ends_when_the_request_has_come_or_is_declined_or_time_is_up(released):
    member = handover(1)
    member.answer(0, Ask(7, 100), ROOM, 0.0)
    later_s = 0.1 if released else KEPT_S
    assert member.answer(0, Ask(8, 100), ROOM, later_s - 0.01) == ()
    if released:
        member.release(7)
    assert member.answer(0, Ask(8, 100), ROOM, later_s) == (Send(0, Offer(8, 5.0)),)
    member.release(99)
