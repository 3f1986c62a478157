"""Load balance by bids, within a stage and across stages, without a centre. **[ours: the paper's rules are open]**

Every `PERIOD_S` an agent whose instance is loaded may send a bid with its load to a few peers of its stage. A peer with
an empty queue, and a load so much lower that moving requests pays, answers with its own load (its slack). The bidder
moves requests to the least loaded peer that answered, until half of the difference in load is gone: queued requests
first, since they have no KV to copy. If no peer of the stage answers and requests are waiting, the next bid goes to the
nearest stages above and below that have living instances. There the threshold is stricter, since a request moved there
is served outside its range. Where the bidder's stage has more instances than these two together, only as many of its
instances bid across as those have, chosen at random, so that a small stage is not flooded by a large one. Bids that
nobody answers become rarer, unless requests wait or the load has grown.

- *Prefix cache*: a request stays if at least half of its prompt was, or would be, found in the cache here: elsewhere it
  would be computed again, or its copy would evict other prefixes.
- *Hysteresis*: a peer answers only below `WITHIN` (across stages, `ACROSS`) times the bidder's load.
- *Ping-pong guard*: at most half of the difference is moved, so that it never changes sign; load that a peer has
  offered to take from one bidder counts as its own towards others for `PROMISED_S`; and a request that has just
  arrived is neither moved again nor handed over for `SETTLED_S`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from l4sim.policies.agent import Instruction, Migrate, OwnView, Send, SetTimer
from l4sim.policies.l4.load import load_of, queued_load
from l4sim.policies.l4.messages import Bid, Slack
from l4sim.policies.l4.ranges import Ranges

PERIOD_S = 0.5
MOST_PASSED = 3
"""Most periods skipped after bids that nobody answered: at least one bid every 2 s."""
FAN_OUT = 3
"""Peers that a bid goes to."""
PATIENCE_S = 0.02
WITHIN = 0.7
ACROSS = 0.4
PROMISED_S = 0.1
"""By then the bidder has decided, and what it moves from its queue has come."""
SETTLED_S = 5.0
MOST_QUEUED = 8
"""Queued requests moved at a time: what is not moved now can be in the next round."""
LEAST_GAP = 3.0
"""Requests; below this, moving one is not worth its copy."""


class Decide(NamedTuple):
    """Timer: decide among the answers to a bid."""

    round: int


class Balance:
    """Both sides of bids, on one instance."""

    def __init__(
        self, instance: int, ranges: Ranges, random: np.random.Generator, *, within: bool, across: bool
    ) -> None:
        self._instance = instance
        self._ranges = ranges
        self._random = random
        self._within = within
        self._across = across
        self._round = 0
        self._bid_load = 0.0
        self._pause = 0
        """Periods to skip after the last bid."""
        self._passed = 0
        self._answers: list[tuple[float, int]] | None = None
        self._bid_across = False
        self._unanswered = not within
        """Whether the last bid within the stage brought nothing (or there is none to make)."""
        self._promised: dict[int, tuple[float, float]] = {}
        """By bidder: load that it may move here, and until when it may."""
        self._settling: dict[int, float] = {}
        """Requests that came by migration, the latest last: until when they stay."""
        self._moving: set[int] = set()

    def bid(self, own: OwnView) -> Sequence[Instruction]:
        """Send a bid, if there is reason to and somebody to send it to."""
        load = load_of(own)
        if self._answers is not None or load < LEAST_GAP or self._pauses(load, own.waiting):
            return ()
        stage = self._ranges.stage_of_instance(self._instance)
        self._bid_across = self._across and self._unanswered and own.waiting > 0
        if self._bid_across:
            neighbours = [self._ranges.neighbour(stage, step) for step in (-1, 1)]
            peers = [member for near in neighbours if near is not None for member in self._ranges.members(near)]
            if self._random.random() * len(self._ranges.members(stage)) >= len(peers):
                peers = []
        else:
            peers = (
                [member for member in self._ranges.members(stage) if member != self._instance] if self._within else []
            )
        if not peers:
            self._unanswered = not self._bid_across
            return ()
        if len(peers) > FAN_OUT:
            peers = [peers[i] for i in self._random.choice(len(peers), FAN_OUT, replace=False)]
        self._round += 1
        self._answers = []
        self._bid_load = load
        bids = [Send(peer, Bid(self._round, load, self._bid_across)) for peer in peers]
        return (*bids, SetTimer(PATIENCE_S, Decide(self._round)))

    def _pauses(self, load: float, waiting: int) -> bool:
        """Whether to skip this period: peers that did not answer would not do so now, unless something has changed."""
        if waiting or load >= self._bid_load + LEAST_GAP or self._passed >= self._pause:
            self._passed = 0
            return False
        self._passed += 1
        return True

    def answer(self, sender: int, bid: Bid, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """Tell the slack, if there is enough of it."""
        self._promised = {
            bidder: promise for bidder, promise in self._promised.items() if promise[1] > now_s and bidder != sender
        }
        load = load_of(own) + sum(amount for amount, _ in self._promised.values())
        bar = ACROSS if bid.across else WITHIN
        if own.waiting or load > bar * bid.load or bid.load - load < LEAST_GAP:
            return ()
        self._promised[sender] = ((bid.load - load) / 2, now_s + PROMISED_S)
        return (Send(sender, Slack(bid.round, load)),)

    def collect(self, sender: int, slack: Slack) -> None:
        """Take an answer to the bid that is out."""
        if self._answers is not None and slack.round == self._round:
            self._answers.append((slack.load, sender))

    def decide(self, round_: int, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """Move requests to the one with the most slack."""
        if self._answers is None or round_ != self._round:
            return ()
        answers, self._answers = self._answers, None
        self._unanswered = not answers and not self._bid_across
        self._pause = 0 if answers else min(2 * self._pause + 1, MOST_PASSED)
        if not answers:
            return ()
        load, peer = min(answers)
        budget = (min(self._bid_load, load_of(own)) - load) / 2
        return [Migrate(request, peer, "rebalance") for request in self._choose(own, budget, now_s)]

    def _choose(self, own: OwnView, budget: float, now_s: float) -> list[int]:
        """Queued requests from the tail, as many as fit; else the longest decoding one, which frees most."""
        self._forget_settled(now_s)
        chosen: list[int] = []
        for queued in reversed(own.queued()):
            size = queued_load(queued.prompt_tokens)
            free = queued.request not in self._settling and 2 * queued.cached_tokens < queued.prompt_tokens
            if free and size <= budget and len(chosen) < MOST_QUEUED:
                chosen.append(queued.request)
                budget -= size
        if not chosen and budget >= 1:
            movable = [
                (decoding.context_tokens, decoding.request)
                for decoding in own.decoding()
                if decoding.request not in self._settling
                and decoding.request not in self._moving
                and 2 * decoding.cached_tokens < decoding.context_tokens
            ]
            chosen = [max(movable)[1]] if movable else []
        self._moving.update(chosen)
        return chosen

    def joined(self, request: int, now_s: float) -> None:
        """A request has migrated here: let it be for a while."""
        self._forget_settled(now_s)
        self._settling.pop(request, None)
        self._settling[request] = now_s + SETTLED_S

    def _forget_settled(self, now_s: float) -> None:
        while self._settling:
            request = next(iter(self._settling))
            if self._settling[request] > now_s:
                return
            del self._settling[request]

    def settled_in_s(self, request: int, now_s: float) -> float:
        """Seconds until a request that has come here may be moved on."""
        return max(self._settling.get(request, now_s) - now_s, 0.0)

    def moves(self, request: int) -> bool:
        """Whether a migration that we asked for is under way."""
        return request in self._moving

    def ended(self, request: int) -> bool:
        """A migration is over; returns whether it was ours."""
        if request not in self._moving:
            return False
        self._moving.remove(request)
        return True
