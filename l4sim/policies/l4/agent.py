"""L4's agent on one instance: hands requests over to the next stage as they outgrow this one.

A request that reaches the stage's upper boundary is announced to every instance of the stage for its new length
(`Ask`); each answers with its load (`Offer`), and the request migrates to the least loaded. Until that has worked, it
decodes on where it is. The messages are ours **[open]**.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from l4sim.policies.agent import (
    Crossed,
    Instruction,
    Migrate,
    MigrationEnded,
    OwnView,
    Received,
    Send,
    SetTimer,
    Started,
    Stimulus,
    TimerFired,
    Watch,
)
from l4sim.policies.l4.plan import Plan

_PATIENCE_S = 0.05
"""How long offers are waited for: many times a message's way, a few iterations."""
_RETRY_S = 1.0
"""When to try again after a refusal; by then some requests of the next stage have ended."""


class Ask(NamedTuple):
    """A request of this length wants to come; what is your load?"""

    request: int
    context_tokens: int


class Offer(NamedTuple):
    """The load of an instance that has room for the request."""

    request: int
    load: int


class _Choose(NamedTuple):
    """Timer: decide among the offers that have come."""

    request: int


class _Retry(NamedTuple):
    """Timer: announce the request again."""

    request: int


class L4Agent:
    """The agent of one instance."""

    def __init__(self, instance: int, plan: Plan) -> None:
        self._plan = plan
        self._stage = next(n for n, stage in enumerate(plan.stages) if instance in stage.instances)
        self._offers: dict[int, list[tuple[int, int]]] = {}
        """Requests announced: (load, instance) of the offers so far."""
        self._asked: dict[int, int] = {}
        """Requests announced: how many were asked."""

    def handle(self, stimulus: Stimulus, own: OwnView, now_s: float) -> Sequence[Instruction]:
        """React to a stimulus."""
        match stimulus:
            case Started():
                last = self._stage == len(self._plan.stages) - 1
                return () if last else (Watch(self._plan.stages[self._stage].hi_tokens),)
            case Crossed(request):
                return self._announce(request.request, own)
            case Received(sender, Ask(request, context_tokens)):
                if own.kv_blocks_free * own.kv_block_tokens <= context_tokens:
                    return ()
                return (Send(sender, Offer(request, own.running + own.waiting)),)
            case Received(sender, Offer(request, load)):
                return self._collect(request, load, sender)
            case TimerFired(_Choose(request)):
                return self._choose(request)
            case TimerFired(_Retry(request)):
                return self._announce(request, own)
            case MigrationEnded(request, _, done, _):
                return () if done or own.find(request) is None else (SetTimer(_RETRY_S, _Retry(request)),)
        return ()

    def _announce(self, request: int, own: OwnView) -> Sequence[Instruction]:
        found = own.find(request)
        if found is None or request in self._offers:
            return ()
        stage = self._plan.stages[self._plan.stage_of(found.context_tokens)]
        self._offers[request] = []
        self._asked[request] = len(stage.instances)
        asks = [Send(instance, Ask(request, found.context_tokens)) for instance in stage.instances]
        return (*asks, SetTimer(_PATIENCE_S, _Choose(request)))

    def _collect(self, request: int, load: int, sender: int) -> Sequence[Instruction]:
        offers = self._offers.get(request)
        if offers is None:
            return ()
        offers.append((load, sender))
        return self._choose(request) if len(offers) == self._asked[request] else ()

    def _choose(self, request: int) -> Sequence[Instruction]:
        offers = self._offers.pop(request, None)
        if offers is None:
            return ()
        del self._asked[request]
        if not offers:
            return (SetTimer(_RETRY_S, _Retry(request)),)
        return (Migrate(request, min(offers)[1], "handover"),)
