"""L4's agent **[ours]**: what moves after dispatch, and only where it is expected to save more than it costs.

Dispatch balances what it is free to place: where little is left the next arrivals go, so that a move only anticipates
them. What it sends where a prefix is cached it is not free to place. So *who was placed for its prefix* decodes
elsewhere if that pays: once its prompt has been computed, its agent asks a few instances what decoding there would
cost. For a context of L tokens beside n requests with C tokens of context and P pending prompt tokens, in seconds,

    out · ((n + 1) · s + (C + L) · c + n · (s + L · c)) + P · p

that is its own iterations, by how much it makes those of the others longer, and the prompts that will hold it up; s, c
and p are the seconds per request, context token and prompt token of the cost model's affine fit, and out is the mean
answer. It moves to the cheapest if that, with the prefixes that its copy evicts there, is at most `WORTH` of what
staying costs, and `LEAST_SAVED_S` less. Its prefix stays cached where it was, and it moves once.

*Bids* (`balance`) move load where no prefixes are followed; where they are, what they evict costs more than they save.
An instance that drains hands over all that it has (`handover`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l4sim.policies.agent import (
    Crossed,
    Draining,
    InstanceUp,
    Instruction,
    Joined,
    Left,
    MigrationEnded,
    OwnView,
    PeerDied,
    Received,
    SetTimer,
    Started,
    Stimulus,
    TimerFired,
    Watch,
)
from l4sim.policies.l4 import balance
from l4sim.policies.l4.affinity import Prices
from l4sim.policies.l4.agent import DRAIN_EVERY_S, BidTime, DrainTime
from l4sim.policies.l4.balance import Balance, Decide
from l4sim.policies.l4.handover import Choose, Handover, Retry
from l4sim.policies.l4.messages import Ask, Bid, Decline, Offer, Slack
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.views import DecodingRequest

ASKED = 3
"""Instances that are asked for a request."""
WORTH = 0.8
LEAST_SAVED_S = 0.3
SMOOTHING = 0.02
"""Weight of the newest request in the share of tokens that are found cached."""


class Mover:
    """The agent of one instance."""

    def __init__(
        self, instance: int, ranges: Ranges, prices: Prices | None, *, bids: bool = False, seed: int = 0
    ) -> None:
        """``ranges``: its own copy, with the instance in a stage. ``prices``: None where nobody moves on for them."""
        self._instance = instance
        self._ranges = ranges
        self._prices = prices
        self._bids = bids
        random = np.random.default_rng((seed, instance))
        self._handover = Handover(instance, ranges, random, price=self._price_s)
        self._balance = Balance(instance, ranges, random, within=bids, across=bids)
        self._cached_tokens, self._context_tokens = 0.0, 1.0
        """Of the requests that begin to decode here, smoothed."""
        self._come: set[int] = set()
        """Requests that have moved here: here they stay."""
        self._drains = False
        # Agents that all began a period at once would all be busy at once.
        self._phase = float(random.random())

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        match stimulus:
            case Started():
                return self._start()
            case Crossed(request):
                return self._begun(request, own)
            case Received(sender, message):
                return self._receive(sender, message, own, now_s)
            case TimerFired(name):
                return self._on_timer(name, own, now_s)
            case MigrationEnded(request, _, done, _):
                return () if self._balance.ended(request) else self._handover.ended(request, done)
            case Joined(request):
                self._joined(request, now_s)
            case InstanceUp(instance):
                self._ranges.add(instance)
            case Draining(instance) if instance == self._instance:
                self._drains = True
                self._ranges.remove(instance)
                return (Watch(None), *self._drain(own))
            case PeerDied(instance) | Draining(instance) | Left(instance):
                self._ranges.remove(instance)
        return ()

    def _start(self) -> Sequence[Instruction]:
        # Everybody who begins to decode crosses 0 tokens.
        watch = () if self._prices is None else (Watch(0),)
        return (*watch, SetTimer(self._phase * balance.PERIOD_S, BidTime())) if self._bids else watch

    def _receive(self, sender: int, message: object, own: OwnView, now_s: float) -> Sequence[Instruction]:
        match message:
            case Ask():
                return self._handover.answer(sender, message, own, now_s)
            case Offer():
                return self._handover.collect(sender, message)
            case Decline(request):
                self._handover.release(request)
            case Bid() if not self._drains:
                return self._balance.answer(sender, message, own, now_s)
            case Slack():
                self._balance.collect(sender, message)
        return ()

    def _on_timer(self, name: object, own: OwnView, now_s: float) -> Sequence[Instruction]:
        match name:
            case Choose(request):
                return self._handover.choose(request)
            case Retry(request):
                return self._handover.begin(request, own)
            case Decide(round_):
                return self._balance.decide(round_, own, now_s)
            case DrainTime():
                return self._drain(own)
            case BidTime() if not self._drains:
                return (*self._balance.bid(own), SetTimer(balance.PERIOD_S, name))
        return ()

    def _drain(self, own: OwnView) -> Sequence[Instruction]:
        return (*self._handover.drain(own, self._balance.moves), SetTimer(DRAIN_EVERY_S, DrainTime()))

    def _joined(self, request: int, now_s: float) -> None:
        self._handover.release(request)
        if self._bids:
            self._balance.joined(request, now_s)
        if self._prices is not None:
            self._come.add(request)

    def _begun(self, request: DecodingRequest, own: OwnView) -> Sequence[Instruction]:
        """A request has begun to decode here: what it found cached tells whether it was placed for it."""
        if request.request in self._come:
            self._come.remove(request.request)
            return ()
        self._cached_tokens += SMOOTHING * (request.cached_tokens - self._cached_tokens)
        self._context_tokens += SMOOTHING * (request.context_tokens - self._context_tokens)
        if not request.cached_tokens or self._prices is None:
            return ()
        beside_tokens = max(own.context_tokens - request.context_tokens, 0)
        staying_s = _decoding_s(self._prices, request.context_tokens, max(own.running - 1, 0), beside_tokens, own)
        most_s = min(WORTH * staying_s, staying_s - LEAST_SAVED_S)
        return self._handover.try_anywhere(
            request, most_s - self._evicted_s(request.context_tokens, self._prices), ASKED
        )

    def _evicted_s(self, context_tokens: int, prices: Prices) -> float:
        """Seconds to compute again what a copy's blocks evict: as large a share of it is found as of prompts here."""
        found = min(self._cached_tokens / self._context_tokens, 1.0)
        return found * context_tokens * prices.prompt_token_s

    def _price_s(self, own: OwnView, context_tokens: int, kept_tokens: Sequence[int]) -> float:
        requests = own.running + len(kept_tokens)
        if self._prices is None:
            return requests
        return _decoding_s(self._prices, context_tokens, requests, own.context_tokens + sum(kept_tokens), own)


def _decoding_s(prices: Prices, context_tokens: int, requests: int, beside_tokens: int, own: OwnView) -> float:
    """What decoding a request beside others costs it and them."""
    mine_s = (requests + 1) * prices.request_s + (beside_tokens + context_tokens) * prices.context_token_s
    theirs_s = requests * (prices.request_s + context_tokens * prices.context_token_s)
    return prices.output_tokens * (mine_s + theirs_s) + own.pending_prompt_tokens * prices.prompt_token_s
