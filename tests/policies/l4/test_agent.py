"""L4's agent: which stimulus reaches which part, and what the ablations leave out."""

from __future__ import annotations

import pytest

from l4sim.policies.agent import (
    Crossed,
    Joined,
    Migrate,
    MigrationEnded,
    PeerDied,
    Received,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Watch,
)
from l4sim.policies.l4 import balance, refinement
from l4sim.policies.l4.agent import LEVELS, BidTime, L4Agent, Parts, RefineTime, ReportTime
from l4sim.policies.l4.balance import SETTLED_S, Decide
from l4sim.policies.l4.handover import Choose, Retry
from l4sim.policies.l4.messages import Ask, Bid, Boundary, Decline, Offer, Report, Slack, Summary
from l4sim.policies.views import DecodingRequest
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, sent, timers

BATCHES = (2.0, 2.0, 2.0)
GROWN = DecodingRequest(7, 100)


def agent(instance: int, level: str = "across", seed: int = 0) -> L4Agent:
    return L4Agent(instance, THREE_STAGES, BATCHES, parts=LEVELS[level], seed=seed)


# Starting, and the ablations.


@pytest.mark.parametrize(
    ("level", "watch", "names"),
    [
        ("plan", [], []),
        ("handover", [Watch(1000)], []),
        ("refinement", [Watch(1000)], [RefineTime()]),
        ("within", [Watch(1000)], [BidTime(), RefineTime()]),
        ("across", [Watch(1000)], [BidTime(), RefineTime()]),
        ("replan", [Watch(1000)], [BidTime(), RefineTime(), ReportTime()]),
    ],
)
def test_each_level_starts_one_part_more(level, watch, names):
    instructions = agent(1, level).handle(Started(), View(1), 0.0)
    assert [i for i in instructions if isinstance(i, Watch)] == watch
    assert [timer.name for timer in timers(instructions)] == names


def test_l4_is_all_of_it():
    assert LEVELS["across"] == Parts()


def test_the_last_stage_watches_nothing():
    assert not [i for i in agent(3).handle(Started(), View(3), 0.0) if isinstance(i, Watch)]


def test_agents_begin_their_periods_at_moments_of_their_own():
    first = {n: timers(agent(n).handle(Started(), View(n), 0.0)) for n in range(4)}
    for bid, refine in first.values():
        assert 0 <= bid.delay_s < balance.PERIOD_S
        assert 0 <= refine.delay_s < refinement.PERIOD_S
    assert len({bid.delay_s for bid, _ in first.values()}) == 4
    assert timers(agent(0).handle(Started(), View(0), 0.0)) == first[0], "the same ones for the same seed"
    assert timers(agent(0, seed=1).handle(Started(), View(0), 0.0)) != first[0]


def test_periods_repeat():
    assert timers(agent(1).handle(TimerFired(BidTime()), View(1), 1.0)) == [SetTimer(balance.PERIOD_S, BidTime())]
    assert timers(agent(1).handle(TimerFired(RefineTime()), View(1), 1.0)) == [
        SetTimer(refinement.PERIOD_S, RefineTime())
    ]


# A handover from end to end.


def test_a_request_that_outgrows_its_stage_is_handed_over():
    source, target = agent(0), agent(1)
    own = View(0, batch=(GROWN,))
    asks = source.handle(Crossed(GROWN), own, 1.0)
    assert [send.to for send in sent(asks)] == [1, 2]
    [offer] = target.handle(Received(0, Ask(7, 100)), View(1, running=3), 1.0)
    assert offer == Send(0, Offer(7, 3.0))
    assert source.handle(Received(1, offer.message), own, 1.0) == ()
    assert source.handle(TimerFired(Choose(7)), own, 1.02) == (Migrate(7, 1, "handover"),)
    assert source.handle(MigrationEnded(7, 1, True, ""), own, 1.5) == ()


def test_a_refused_handover_is_tried_again():
    source, own = agent(0), View(0, batch=(GROWN,))
    [again] = source.handle(MigrationEnded(7, 1, False, "the destination has no room"), own, 1.0)
    assert again.name == Retry(7)
    assert len(sent(source.handle(TimerFired(again.name), own, 1.0 + again.delay_s))) == 2


def test_a_declined_offer_keeps_nothing():
    target, own = agent(1), View(1, kv_blocks_free=8)
    assert target.handle(Received(0, Ask(7, 100)), own, 1.0)
    assert target.handle(Received(0, Ask(8, 100)), own, 1.0) == ()
    target.handle(Received(0, Decline(7)), own, 1.0)
    assert target.handle(Received(0, Ask(8, 100)), own, 1.0)


def test_what_is_already_beyond_the_stage_was_put_there_on_purpose():
    beyond = DecodingRequest(7, 101)
    assert agent(0).handle(Crossed(beyond), View(0, batch=(beyond,)), 1.0) == ()


@pytest.mark.parametrize("stimulus", [Crossed(GROWN), TimerFired(Retry(7))])
def test_what_has_just_come_is_not_handed_over_at_once(stimulus):
    source, own = agent(0), View(0, batch=(GROWN,))
    source.handle(Joined(7), own, 1.0)
    assert source.handle(stimulus, own, 2.0) == (SetTimer(SETTLED_S - 1.0, Retry(7)),)
    assert len(sent(source.handle(stimulus, own, 1.0 + SETTLED_S))) == 2


# Bids from end to end.


def test_a_loaded_instance_moves_work_to_a_peer():
    bidder, peer = agent(1), agent(2)
    own = View(1, running=9, batch=tuple(DecodingRequest(n, 200 + n) for n in range(9)))
    bid, decide, _ = bidder.handle(TimerFired(BidTime()), own, 1.0)
    assert bid == Send(2, Bid(1, 9.0, False))
    [slack] = peer.handle(Received(1, bid.message), View(2, running=1), 1.0)
    assert slack == Send(1, Slack(1, 1.0))
    assert bidder.handle(Received(2, slack.message), own, 1.0) == ()
    assert decide.name == Decide(1)
    assert bidder.handle(TimerFired(decide.name), own, 1.02) == [Migrate(8, 2, "rebalance")]
    # A failed rebalance is let be: the next bid is soon enough.
    assert bidder.handle(MigrationEnded(8, 2, False, "the destination has no room"), own, 1.1) == ()


# Boundaries.


def test_news_of_a_boundary_is_watched_for_and_passed_on_and_old_news_is_not():
    member = agent(1)
    news = Boundary(1, 1, 900)
    assert member.handle(Received(2, news), View(1), 1.0) == (Watch(900), Send(2, news))
    assert member.handle(Received(2, news), View(1), 1.0) == ()


def test_without_handover_news_of_a_boundary_is_not_watched_for():
    parts = Parts(handover=False)
    member = L4Agent(1, THREE_STAGES, BATCHES, parts=parts)
    assert member.handle(Received(2, Boundary(1, 1, 900)), View(1), 1.0) == (Send(2, Boundary(1, 1, 900)),)


def test_a_leader_that_moves_its_boundary_watches_for_the_new_one():
    leader = agent(0)
    leader.handle(Received(1, Summary(1, 1.0)), View(0), 1.0)
    assert Watch(95) in leader.handle(TimerFired(RefineTime()), View(0, running=10), 1.0)


def test_a_leader_hears_its_members():
    leader = agent(1)
    leader.handle(Received(2, Report(5.0)), View(1), 1.0)
    assert Send(0, Summary(1, 1.25)) in leader.handle(TimerFired(RefineTime()), View(1), 1.0)


# Deaths.


def test_the_dead_are_asked_for_nothing_and_their_stage_is_passed_over():
    source, own = agent(0), View(0, batch=(GROWN,))
    source.handle(PeerDied(1), own, 1.0)
    assert [send.to for send in sent(source.handle(Crossed(GROWN), own, 1.0))] == [2]
    source = agent(0)
    for instance in (1, 2):
        source.handle(PeerDied(instance), own, 1.0)
    assert [send.to for send in sent(source.handle(Crossed(GROWN), own, 1.0))] == [3]
    source = agent(0)
    for instance in (1, 2, 3):
        source.handle(PeerDied(instance), own, 1.0)
    assert source.handle(Crossed(GROWN), own, 1.0) == ()
