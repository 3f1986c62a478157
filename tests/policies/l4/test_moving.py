"""What moves after dispatch: who was placed for its prefix, load that bids find, and all where an instance drains."""

from __future__ import annotations

from l4sim.policies.agent import (
    Crossed,
    Draining,
    Joined,
    Migrate,
    MigrationEnded,
    Received,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Watch,
)
from l4sim.policies.l4.affinity import Prices
from l4sim.policies.l4.agent import BidTime, DrainTime
from l4sim.policies.l4.handover import Choose
from l4sim.policies.l4.messages import Ask, Bid, Decline, Offer
from l4sim.policies.l4.moving import Mover
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.views import DecodingRequest
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, moved, sent

PRICES = Prices(prompt_token_s=1e-4, prompt_pair_s=0.0, request_s=1e-3, context_token_s=1e-6, output_tokens=100.0)
HELD = DecodingRequest(7, 1000, 500)
# 100 x (10 x 1 ms + 10,000 x 1 us + 9 x 2 ms) = 3.8 s, and 2 s of prompts.
BUSY = View(0, running=10, context_tokens=10_000, pending_prompt_tokens=20_000, batch=(HELD,))


def mover(instance: int = 0, prices: Prices | None = PRICES, *, bids: bool = False) -> Mover:
    return Mover(instance, Ranges(THREE_STAGES), prices, bids=bids)


def asks(agent: Mover, request: DecodingRequest = HELD, own: View = BUSY) -> list[Send]:
    return sent(agent.handle(Crossed(request), own, 1.0))


def answered(*prices_s: float) -> list[Migrate | Send]:
    """What the agent of the busy instance does when all others have offered."""
    agent = mover()
    asks(agent)
    decisions = [agent.handle(Received(peer, Offer(7, price)), BUSY, 1.0) for peer, price in enumerate(prices_s, 1)]
    return list(decisions[-1])


def test_who_begins_to_decode_is_looked_at():
    assert mover().handle(Started(), BUSY, 0.0) == (Watch(0),)
    assert mover(prices=None).handle(Started(), BUSY, 0.0) == ()


def test_who_was_placed_for_its_prefix_asks_what_decoding_elsewhere_would_cost():
    assert asks(mover()) == [Send(peer, Ask(7, 1000)) for peer in (1, 2, 3)]


def test_who_found_nothing_cached_stays_where_dispatch_put_it():
    assert asks(mover(), HELD._replace(cached_tokens=0)) == []


def test_where_nothing_can_be_saved_nobody_asks():
    assert asks(mover(), own=View(0, running=1, context_tokens=1000, batch=(HELD,))) == []


def test_it_moves_to_the_cheapest_once_and_the_others_are_declined():
    assert answered(4.0, 3.0, 5.0) == [Send(1, Decline(7)), Send(3, Decline(7)), Migrate(7, 2, "handover")]


def test_it_stays_where_moving_saves_too_little():
    # 5.8 s here; a fifth of that and the prefixes evicted (half of 1,000 tokens, 0.05 s) leave 4.59 s.
    assert moved(answered(9.0, 9.0, 4.55)) == [7]
    assert answered(9.0, 9.0, 4.6) == [Send(peer, Decline(7)) for peer in (1, 2, 3)]


def test_if_nobody_answers_or_has_room_in_the_end_it_stays_for_good():
    agent = mover()
    asks(agent)
    assert agent.handle(TimerFired(Choose(7)), BUSY, 1.1) == ()
    asks(agent)
    agent.handle(Received(1, Offer(7, 1.0)), BUSY, 1.2)
    assert moved(agent.handle(TimerFired(Choose(7)), BUSY, 1.3)) == [7]
    assert agent.handle(MigrationEnded(7, 1, False, "no room"), BUSY, 1.4) == ()


def test_who_has_moved_here_does_not_move_on():
    agent = mover()
    agent.handle(Joined(7), BUSY, 1.0)
    assert asks(agent) == []


def test_an_offer_tells_what_decoding_here_would_cost_and_counts_who_was_offered_room():
    own = View(1, running=1, context_tokens=1000, pending_prompt_tokens=1000)
    agent = mover(1)
    # 100 x (2 x 1 ms + 2,000 x 1 us + 1 x 2 ms) + 0.1 s.
    [first] = sent(agent.handle(Received(0, Ask(7, 1000)), own, 1.0))
    [second] = sent(agent.handle(Received(2, Ask(8, 1000)), own, 1.0))
    assert round(first.message.load, 6) == 0.7
    assert round(second.message.load, 6) == 0.1 + 100 * (0.003 + 0.003 + 0.004)


def test_bids_are_made_where_they_are_part_of_it():
    loaded = View(1, running=20, pending_prompt_tokens=10_000)
    agent = mover(1, None, bids=True)
    [timer] = agent.handle(Started(), loaded, 0.0)
    assert isinstance(timer, SetTimer)
    bids = sent(agent.handle(TimerFired(BidTime()), loaded, 0.5))
    assert [type(bid.message) for bid in bids] == [Bid]
    assert sent(mover(1, None).handle(Started(), loaded, 0.0)) == []


def test_an_instance_that_drains_hands_over_what_it_has_and_offers_nothing():
    agent = mover(prices=None)
    first = agent.handle(Draining(0), BUSY, 1.0)
    assert first[0] == Watch(None)
    assert sent(first)
    assert first[-1].name == DrainTime()
    assert agent.handle(Received(1, Ask(9, 10)), BUSY, 1.0) == ()
