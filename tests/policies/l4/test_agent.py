"""L4's agent: which stimulus reaches which part, and what the ablations leave out."""

from __future__ import annotations

import pytest

from l4sim.policies.agent import (
    Crossed,
    Draining,
    InstanceUp,
    Joined,
    Left,
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
from l4sim.policies.l4.agent import DRAIN_EVERY_S, LEVELS, BidTime, DrainTime, L4Agent, Parts, RefineTime, ReportTime
from l4sim.policies.l4.balance import SETTLED_S, Decide
from l4sim.policies.l4.handover import DRAINED_QUEUED, Choose, Retry
from l4sim.policies.l4.messages import Ask, Bid, Boundary, Decline, NewPlan, Offer, Report, Slack, Summary
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.views import DecodingRequest, QueuedRequest
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, sent, timers

BATCHES = (2.0, 2.0, 2.0)
GROWN = DecodingRequest(7, 100)


def agent(instance: int, level: str = "across", seed: int = 0) -> L4Agent:
    return L4Agent(instance, Ranges(THREE_STAGES), BATCHES, parts=LEVELS[level], seed=seed)


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
    member = L4Agent(1, Ranges(THREE_STAGES), BATCHES, parts=parts)
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


# Instances that join.


def test_one_that_has_joined_is_asked_and_bid_to_like_the_others_of_its_stage():
    source, own = agent(0), View(0, batch=(GROWN,))
    source.handle(InstanceUp(4), own, 1.0)
    source.handle(PeerDied(1), own, 1.0)
    assert [send.to for send in sent(source.handle(Crossed(GROWN), own, 1.0))] == [2, 4]
    bidder = agent(1)
    bidder.handle(InstanceUp(4), View(1), 1.0)
    bids = sent(bidder.handle(TimerFired(BidTime()), View(1, running=9), 1.0))
    assert [bid.to for bid in bids] == [2, 4]


def newcomer(instance: int) -> L4Agent:
    ranges = Ranges(THREE_STAGES)
    ranges.add(instance)
    return L4Agent(instance, ranges, BATCHES)


def test_the_newcomer_itself_is_a_full_member_of_its_stage():
    member, own = newcomer(4), View(4)
    started = member.handle(Started(), own, 60.0)
    assert Watch(1000) in started
    assert [timer.name for timer in timers(started)] == [BidTime(), RefineTime()]
    assert member.handle(InstanceUp(4), own, 60.0) == ()
    assert sent(member.handle(Received(0, Ask(7, 100)), own, 61.0)) == [Send(0, Offer(7, 0.0))]
    for instance in (1, 2):
        member.handle(PeerDied(instance), own, 62.0)
    assert Send(0, Summary(1, 0.0)) in member.handle(TimerFired(RefineTime()), own, 65.0), "it leads now"


def test_a_newcomer_goes_by_the_generation_of_the_plan_that_it_was_started_with():
    ranges = Ranges(THREE_STAGES)
    ranges.add(4)
    member = L4Agent(4, ranges, BATCHES, generation=2)
    assert member.handle(Received(-1, NewPlan(2, THREE_STAGES, BATCHES)), View(4), 61.0) == ()
    assert Watch(1000) in member.handle(Received(-1, NewPlan(3, THREE_STAGES, BATCHES)), View(4), 62.0)


# Draining.


def drained(level: str = "across", own: View | None = None) -> tuple[L4Agent, list]:
    """The agent of instance 1, of two in its stage, and what it does when it hears that it is to leave."""
    member = agent(1, level)
    return member, list(member.handle(Draining(1), own or View(1), 1.0))


def test_an_instance_that_drains_hands_over_round_by_round_what_waits_and_one_that_decodes():
    batch = (DecodingRequest(7, 300), DecodingRequest(8, 1200))
    own = View(1, batch=batch, queue=tuple(QueuedRequest(20 + n, 150, 0) for n in range(DRAINED_QUEUED + 1)))
    member, first = drained(own=own)
    assert first[0] == Watch(None)
    assert timers(first)[-1] == SetTimer(DRAIN_EVERY_S, DrainTime())
    waiting = [Send(2, Ask(20 + n, 150)) for n in range(DRAINED_QUEUED)]
    assert sent(first) == [*waiting, Send(2, Ask(7, 300))]
    second = sent(member.handle(TimerFired(DrainTime()), own, 1.1))
    assert second == [Send(2, Ask(20 + DRAINED_QUEUED, 150)), Send(3, Ask(8, 1200))], "each to the stage of its length"
    assert sent(member.handle(TimerFired(DrainTime()), own, 1.2)) == []
    assert member.handle(Received(3, Offer(8, 1.0)), own, 1.2) == (Migrate(8, 3, "handover"),)
    assert member.handle(Received(2, Offer(20, 1.0)), own, 1.2) == (Migrate(20, 2, "handover"),)


def test_what_has_just_come_leaves_all_the_same_and_what_is_refused_is_tried_again():
    own = View(1, batch=(DecodingRequest(7, 300),))
    member = agent(1)
    member.handle(Joined(7), own, 0.9)
    assert Send(2, Ask(7, 300)) in member.handle(Draining(1), own, 1.0)
    [again] = member.handle(TimerFired(Choose(7)), own, 1.02)
    assert again.name == Retry(7)
    assert sent(member.handle(TimerFired(Retry(7)), own, 1.6)) == [Send(2, Ask(7, 300))]


def test_what_balance_moves_already_is_not_asked_for_twice():
    own = View(1, running=9, batch=(DecodingRequest(7, 300),))
    member = agent(1)
    member.handle(TimerFired(BidTime()), own, 0.5)
    member.handle(Received(2, Slack(1, 1.0)), own, 0.5)
    assert member.handle(TimerFired(Decide(1)), own, 0.52) == [Migrate(7, 2, "rebalance")]
    assert sent(member.handle(Draining(1), own, 0.6)) == []
    member.handle(MigrationEnded(7, 2, False, "the destination has no room"), own, 0.65)
    assert sent(member.handle(TimerFired(DrainTime()), own, 0.7)) == [Send(2, Ask(7, 300))]


def test_an_instance_that_drains_offers_nothing_takes_no_bid_and_makes_none():
    member, _ = drained()
    own = View(1, running=20)
    assert member.handle(Received(0, Ask(9, 100)), own, 2.0) == ()
    assert member.handle(Received(2, Bid(1, 50.0, False)), own, 2.0) == ()
    assert member.handle(TimerFired(BidTime()), own, 2.0) == ()
    assert member.handle(TimerFired(RefineTime()), own, 2.0) == ()
    assert member.handle(Crossed(DecodingRequest(7, 1000)), own, 2.0) == ()


def test_whatever_an_instance_that_drains_still_hears_it_stays_out():
    member, _ = drained()
    moved, news = NewPlan(1, THREE_STAGES, BATCHES), Boundary(1, 2**50 + 1, 900)
    assert member.handle(Received(-1, moved), View(1), 2.0) == ()
    assert member.handle(Received(2, news), View(1), 2.0) == (Send(2, news),), "it watches for nothing"
    assert member.handle(Received(2, Ask(9, 100)), View(1), 2.0) == ()


def test_without_handover_an_instance_that_drains_serves_what_it_has():
    _, instructions = drained("plan", View(1, batch=(DecodingRequest(7, 300),)))
    assert instructions == []


@pytest.mark.parametrize("change", [Draining(1), Left(1)])
def test_who_drains_or_has_left_is_asked_for_nothing(change):
    source, own = agent(0), View(0, batch=(GROWN,))
    source.handle(change, own, 1.0)
    assert [send.to for send in sent(source.handle(Crossed(GROWN), own, 1.0))] == [2]


def test_the_last_one_of_a_stage_hands_over_to_the_stage_above():
    own = View(0, batch=(DecodingRequest(7, 50),))
    assert [send.to for send in sent(agent(0).handle(Draining(0), own, 1.0))] == [1, 2]
    alone = L4Agent(3, Ranges(THREE_STAGES), BATCHES)
    own = View(3, batch=(DecodingRequest(7, 2000),))
    for instance in (0, 1, 2):
        alone.handle(PeerDied(instance), own, 1.0)
    assert sent(alone.handle(Draining(3), own, 1.0)) == [], "nobody is left"
    alone.handle(InstanceUp(4), own, 1.05)
    assert sent(alone.handle(TimerFired(DrainTime()), own, 1.1)) == [Send(4, Ask(7, 2000))]
