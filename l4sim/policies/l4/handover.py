"""Handover: a request that outgrows its stage moves to the next one. **[ours: messages, reservations, retries]**

The instance that has the request (the source) asks a few instances of the stage for its new length. Each of them that
has room reserves it for a moment and offers to take the request, telling its load. The source migrates the request to
the least loaded one and declines the other offers. Until the migration is done the request decodes at the source.

- *Reservation*: an offer counts as load and as used room until the request has arrived, the offer is declined, or
  `KEPT_S` has passed. So two sources are not promised the same blocks, and a source that dies blocks nothing for long.
- *Starvation guard*: each time nobody could take a request, twice as many instances are asked, after a pause twice as
  long, until all of the stage are. So a request asks `FAN_OUT / RETRY_S` instances a second, however large the stage.
- *Draining*: an instance that is to leave makes no offers and hands over what it has, each request to the stage of its
  length: in a round one that decodes, and several that wait, which have no KV to copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from l4sim.policies.agent import Instruction, Migrate, OwnView, Send, SetTimer
from l4sim.policies.l4.load import load_of
from l4sim.policies.l4.messages import Ask, Decline, Offer
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.views import DecodingRequest

FAN_OUT = 2
"""Instances asked at first: enough for the power of choices, and no more messages in a larger stage."""
PATIENCE_S = 0.02
"""How long offers are waited for: many times a message's way, a few iterations."""
KEPT_S = 1.0
"""How long an offer stands; well over a copy's time."""
DRAINED_QUEUED = 8
"""Waiting requests that a draining instance begins to hand over in a round."""
RETRY_S = 0.5
"""When to ask again, at first: by then some requests of the next stage have ended."""


class Choose(NamedTuple):
    """Timer: decide among the offers that have come."""

    request: int


class Retry(NamedTuple):
    """Timer: ask again."""

    request: int


Price = Callable[[OwnView, int, Sequence[int]], float]
"""What an offer tells, of the own instance, the tokens asked for, and those of each request that was offered room."""


def _load(own: OwnView, context_tokens: int, kept_tokens: Sequence[int]) -> float:
    """The instance's load, what has been offered room included."""
    return load_of(own) + len(kept_tokens)


class Handover:
    """Both sides of handovers, on one instance."""

    def __init__(self, instance: int, ranges: Ranges, random: np.random.Generator, *, price: Price = _load) -> None:
        """``price``: what offers tell, the least of which is taken."""
        self._instance = instance
        self._ranges = ranges
        self._random = random
        self._price = price
        self._most: dict[int, float] = {}
        """The highest price at which a request leaves, for those that need not."""
        self._offers: dict[int, dict[int, float]] = {}
        """Loads offered so far, by request that asks are out for and by peer."""
        self._asked: dict[int, int] = {}
        """How many were asked last, by request that nobody has taken yet."""
        self._kept: dict[int, tuple[int, float]] = {}
        """Requests that we have offered to take: tokens, and until when."""
        self._drains = False

    def begin(self, request: int, own: OwnView) -> Sequence[Instruction]:
        """Ask for a request that decodes here, if it belongs elsewhere."""
        context_tokens = self._tokens_of(request, own)
        if context_tokens is None:
            self._forget(request)
            return ()
        stage = self._ranges.stage_for(context_tokens)
        at_home = not self._drains and stage == self._ranges.stage_of_instance(self._instance)
        if request in self._offers or at_home:
            return ()
        peers = [member for member in self._ranges.members(stage) if member != self._instance]
        if not peers:
            if self._drains:
                # There may be some in the next round.
                self._forget(request)
            return ()
        most = 2 * self._asked[request] if request in self._asked else FAN_OUT
        return self._ask(request, context_tokens, peers, most)

    def try_anywhere(self, request: DecodingRequest, most_price: float, asked: int) -> Sequence[Instruction]:
        """Ask so many instances, of whichever stage, for a request that stays unless one takes it for less."""
        members = [member for stage in range(len(self._ranges)) for member in self._ranges.members(stage)]
        peers = [member for member in members if member != self._instance]
        if most_price <= 0 or self._drains or not peers or request.request in self._offers:
            return ()
        self._most[request.request] = most_price
        return self._ask(request.request, request.context_tokens, peers, asked)

    def _ask(self, request: int, context_tokens: int, peers: Sequence[int], most: int) -> Sequence[Instruction]:
        if len(peers) > most:
            peers = [peers[i] for i in self._random.choice(len(peers), most, replace=False)]
        self._offers[request] = {}
        self._asked[request] = len(peers)
        asks = [Send(peer, Ask(request, context_tokens)) for peer in peers]
        return (*asks, SetTimer(PATIENCE_S, Choose(request)))

    def _tokens_of(self, request: int, own: OwnView) -> int | None:
        """The context of a request that can be handed over; None if it is not here (any more)."""
        found = own.find(request)
        if found is not None:
            return found.context_tokens
        waiting = own.queued() if self._drains else ()
        return next((queued.prompt_tokens for queued in waiting if queued.request == request), None)

    def drain(self, own: OwnView, moving: Callable[[int], bool]) -> Sequence[Instruction]:
        """A round of handing over everything, but for what is ``moving`` already."""
        self._drains = True

        def untried(requests: Iterable[int]) -> Iterator[int]:
            return (request for request in requests if request not in self._asked and not moving(request))

        waiting = islice(untried(queued.request for queued in own.queued()), DRAINED_QUEUED)
        decoding = islice(untried(decoding.request for decoding in own.decoding()), 1)
        return [instruction for request in (*waiting, *decoding) for instruction in self.begin(request, own)]

    def answer(self, sender: int, ask: Ask, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """Offer what is free, or say nothing."""
        if self._drains:
            return ()
        self._kept = {
            request: kept for request, kept in self._kept.items() if kept[1] > now_s and request != ask.request
        }
        kept = [tokens for tokens, _ in self._kept.values()]
        # A quarter of its length to grow by, so that the request does not have to leave at once.
        wanted_tokens = ask.context_tokens * 5 // 4
        if own.kv_blocks_free * own.kv_block_tokens - sum(kept) < wanted_tokens:
            return ()
        price = self._price(own, ask.context_tokens, kept)
        self._kept[ask.request] = (ask.context_tokens, now_s + KEPT_S)
        return (Send(sender, Offer(ask.request, price)),)

    def release(self, request: int) -> None:
        """A request has come, or will not: nothing needs to be kept for it."""
        self._kept.pop(request, None)

    def collect(self, sender: int, offer: Offer) -> Sequence[Instruction]:
        """Take an offer; the last one that can come decides."""
        offers = self._offers.get(offer.request)
        if offers is None:
            return ()
        offers[sender] = offer.load
        return self.choose(offer.request) if len(offers) >= self._asked[offer.request] else ()

    def choose(self, request: int) -> Sequence[Instruction]:
        """Migrate to the least loaded of those that offered."""
        offers = self._offers.pop(request, None)
        if offers is None:
            return ()
        most_price = self._most.get(request, math.inf)
        if not offers:
            return self._later(request)
        taken: int | None = min(offers, key=lambda peer: (offers[peer], peer))
        if taken is not None and offers[taken] > most_price:
            taken = None
            self._forget(request)
        declines = [Send(peer, Decline(request)) for peer in offers if peer != taken]
        return (*declines, *(() if taken is None else (Migrate(request, taken, "handover"),)))

    def ended(self, request: int, done: bool) -> Sequence[Instruction]:
        """A migration is over; one that failed is tried again."""
        if done:
            self._forget(request)
            return ()
        return self._later(request)

    def _forget(self, request: int) -> None:
        """A request has gone; it may have crossed a boundary that moved, and been asked for again, meanwhile."""
        self._offers.pop(request, None)
        self._asked.pop(request, None)
        self._most.pop(request, None)

    def _later(self, request: int) -> Sequence[Instruction]:
        if request in self._most:
            self._forget(request)
            return ()
        pauses = max(self._asked.get(request, 0) / FAN_OUT, 1.0)
        return (SetTimer(RETRY_S * pauses, Retry(request)),)
