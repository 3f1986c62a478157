"""The front end: requests arrive there, the router sends them to instances, and their ends are recorded."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from l4sim.engine.request import Request
from l4sim.errors import InputError
from l4sim.policies.agent import FleetStimulus
from l4sim.policies.routers import HOLD, Following, Hearing, Listening, Router
from l4sim.policies.views import InstanceKind, InstanceView, RequestView
from l4sim.records import RequestRow, Table, request_table
from l4sim.runtime.clock import Clock, Moment
from l4sim.runtime.published_view import PublishedView
from l4sim.runtime.trace_requests import TraceRequests
from l4sim.specs.front_end import NO_FRONT_END, FrontEndCosts

_REPORT_EVERY = 512

Progress = Callable[[float, int], None]
"""Seconds since the run's start, requests ended."""


class FrontEnd:
    """Replays a trace's requests: those with a time arrive then, a session's next turn its delay after the turn before
    has ended, and in a closed loop the next request as soon as one has ended, in whichever way."""

    def __init__(
        self,
        requests: TraceRequests,
        router: Router,
        clock: Clock,
        *,
        refusal: Callable[[Request, int], str | None],
        submit: Callable[[Request, int], None],
        on_all_ended: Callable[[], None],
        progress: Progress | None = None,
        lateness_counts: bool = False,
        costs: FrontEndCosts = NO_FRONT_END,
        view_age_s: float | None = None,
    ) -> None:
        """``refusal`` says why an instance can never serve a request, None if it can; ``submit`` brings it there.

        ``lateness_counts``: a request has arrived when it was due, even if the clock calls later (the wall's does).
        ``costs``: what passing through takes, which all latencies then count in.
        ``view_age_s``: publish counts so often, whatever the router asks for; 0: it sees live ones.
        """
        self.rows: Table[RequestRow] = request_table()
        self._views: list[InstanceView] = []
        self._fleet_changed = False
        """Whether the router has still to be told which instances there are."""
        self._kinds: dict[InstanceKind, int] = {}
        """One instance of each kind that takes requests, or did last."""
        self._requests = requests
        self._router = router
        self._clock = clock
        self._refusal = refusal
        self._submit = submit
        self._on_all_ended = on_all_ended
        self._progress = progress
        self._lateness_counts = lateness_counts
        self._costs = costs
        own_age_s: float = getattr(router, "view_age_s", 0.0)
        self._view_age_s = own_age_s if view_age_s is None else view_age_s
        self._started_s = 0.0
        self._publishes = False
        # A router is told only what it has a method for.
        self._tell_published: Callable[[float], None] | None = getattr(router, "published", None)
        self._tell_ended: Callable[[int, float], None] | None = getattr(router, "ended", None)
        self._timers: Mapping[str, float] = getattr(router, "timers", {})
        self._tick: Callable[[str, float], None] | None = getattr(router, "tick", None)
        self._held: deque[Request] = deque()
        """Requests that the router keeps back, in order of arrival."""
        self._has_ended = bytearray(len(requests))
        self._left = len(requests)
        self._arrived = 0

    @property
    def in_flight(self) -> int:
        """Requests that have arrived and have not ended."""
        return self._arrived - (len(self._has_ended) - self._left)

    @property
    def held(self) -> int:
        """Requests in flight that wait here, because the router keeps them back."""
        return len(self._held)

    @property
    def left(self) -> int:
        """Requests that have not ended, or not arrived."""
        return self._left

    def start(self) -> None:
        """Let the trace's requests arrive, on the instances that the router was built for."""
        self._fleet_changed = False
        self._started_s = self._clock.now_s
        for name, period_s in self._timers.items():
            self._clock.at(self._clock.now_s + period_s, self._on_timer, name)
        first_s = self._requests.next_open_s
        if first_s is not None:
            self._clock.at(first_s, self._on_open_arrival, first_s)
        if self._requests.loop is not None:
            for row in self._requests.loop.begin():
                self._clock.at(self._clock.now_s, self._on_sent, (row, self._clock.now_s))

    def open(self, view: InstanceView) -> None:
        """From now on an instance takes requests."""
        if self._view_age_s:
            view = PublishedView(view)
        insort(self._views, view, key=lambda known: known.instance)
        self._fleet_changed = True
        self._kinds.setdefault(view.kind, view.instance)

    def close(self, instance: int) -> None:
        """From now on an instance takes no requests."""
        self._views = [view for view in self._views if view.instance != instance]
        self._fleet_changed = True
        if self._views:
            self._kinds = {view.kind: view.instance for view in self._views}

    # Arrivals.

    def _on_open_arrival(self, moment: Moment) -> None:
        row = self._requests.pop_open()
        next_s = self._requests.next_open_s
        if next_s is not None:
            self._clock.at(max(next_s, self._clock.now_s), self._on_open_arrival, next_s)
        self._arrive(row, moment.value)

    def _on_sent(self, moment: Moment) -> None:
        row, due_s = moment.value
        self._arrive(row, due_s)

    def _arrive(self, row: int, due_s: float) -> None:
        arrival_s = due_s if self._lateness_counts else self._clock.now_s
        costs = self._costs
        before_s = 0.0 if costs is NO_FRONT_END else costs.before_s(self._requests.prompt_tokens(row))
        if before_s:
            self._clock.at(self._clock.now_s + before_s, self._on_passed, (row, arrival_s))
        else:
            self._enter(row, arrival_s)

    def _on_passed(self, moment: Moment) -> None:
        self._enter(*moment.value)

    def _enter(self, row: int, arrival_s: float) -> None:
        if self._has_ended[row]:
            # The run has failed before.
            return
        self._arrived += 1
        if self._view_age_s and not self._publishes:
            self._publishes = True
            periods = math.floor((self._clock.now_s - self._started_s) / self._view_age_s) + 1
            self._clock.at(self._started_s + periods * self._view_age_s, self._on_publication)
        request = self._requests.request(row, arrival_s)
        reason = self._rejection(request)
        if reason is not None:
            self.end(request, "rejected", reason)
            return
        self.route(request)

    def _rejection(self, request: Request) -> str | None:
        """Why no instance can ever serve a request; None if one can."""
        reason = None
        for instance in self._kinds.values():
            reason = self._refusal(request, instance)
            if reason is None:
                return None
        return reason

    # Routing.

    def route(self, request: Request) -> None:
        """Send a request to the instance that the router chooses among those that can serve it, now or later."""
        if self._held or not self._send(request):
            self._held.append(request)
            if self.in_flight == len(self._held) and not self._timers and not self._view_age_s:
                raise InputError(
                    f"the router keeps request {request.index} back while nothing else is in flight and no timer of "
                    "its own is set: accepted is a position"
                )

    def _offer_held(self) -> None:
        """The router has heard something: perhaps it wants now what it kept back."""
        while self._held:
            # Out first: where it ends at once, those behind it are offered before this returns.
            request = self._held.popleft()
            if not self._send(request):
                self._held.appendleft(request)
                return

    def _send(self, request: Request) -> bool:
        """Whether a request is gone, to an instance or to its end; False if the router keeps it back."""
        views = self._views
        if self._fleet_changed:
            self._fleet_changed = False
            if views and isinstance(self._router, Following):
                self._router.follow([known.instance for known in views])
        if len(self._kinds) > 1:
            views = [view for view in views if self._refusal(request, view.instance) is None]
        if not views:
            self.end(
                request, "failed", "no instance is left that can serve it" if self._views else "no instance is left"
            )
            return True
        view = RequestView(
            request.index,
            request.prompt_tokens,
            request.session,
            self._requests.prefix_ids(request.index),
            request.total_tokens,
        )
        if self._tell_published is not None and not self._view_age_s:
            self._tell_published(self._clock.now_s)
        position = self._router.route(view, views)
        if position == HOLD:
            return False
        chosen = views[position]
        if self._view_age_s and self._tell_published is None:
            assert isinstance(chosen, PublishedView)
            chosen.sent(request.total_tokens)
        instance = chosen.instance
        request.last_instance = instance
        if request.first_instance < 0:
            request.first_instance = instance
        self._submit(request, instance)
        return True

    def _on_publication(self, moment: Moment) -> None:
        """All counts are published at once."""
        now_s = self._clock.now_s
        for view in self._views:
            assert isinstance(view, PublishedView)
            view.refresh()
        # While nothing is in flight, nothing changes.
        self._publishes = self.in_flight > 0
        if self._publishes:
            self._clock.at(now_s + self._view_age_s, self._on_publication)
        if self._tell_published is not None:
            self._tell_published(now_s)
            self._offer_held()

    def _on_timer(self, moment: Moment) -> None:
        name, now_s = moment.value, self._clock.now_s
        self._clock.at(now_s + self._timers[name], self._on_timer, name)
        assert self._tick is not None, "a router with timers has no tick"
        self._tick(name, now_s)
        self._offer_held()

    def notice(self, stimulus: FleetStimulus) -> None:
        """Tell the router what all agents hear of the fleet."""
        if isinstance(self._router, Hearing):
            self._router.hear(stimulus, self._clock.now_s)
        self._offer_held()

    def hear(self, sender: int, message: Any) -> None:
        """Take an agent's message to the router."""
        if isinstance(self._router, Listening):
            self._router.receive(sender, message, self._clock.now_s)
            self._offer_held()

    # Ends.

    def finish(self, request: Request) -> None:
        """A request has been answered."""
        self.end(request, "finished")

    def end(self, request: Request, status: str, reason: str = "") -> None:
        """A request has ended, in whichever way; its session goes on."""
        self._record(request, status, reason)
        if self._tell_ended is not None:
            self._tell_ended(request.index, self._clock.now_s)
        ended_s = self._clock.now_s
        if status == "finished":
            ended_s = sent_s(request, self._costs)[1]
        for row, delay_s in self._requests.following(request.index):
            due_s = ended_s + delay_s
            self._clock.at(max(due_s, self._clock.now_s), self._on_sent, (row, due_s))
        loop = self._requests.loop
        next_row = None if loop is None else loop.ended(request.index)
        if next_row is not None:
            self._clock.at(max(ended_s, self._clock.now_s), self._on_sent, (next_row, ended_s))
        ended = len(self._has_ended) - self._left
        if self._progress is not None and ended % _REPORT_EVERY == 0:
            self._progress(self._clock.now_s, ended)
        if not self._left:
            self._on_all_ended()
        elif self._held:
            self._offer_held()

    def has_ended(self, request: int) -> bool:
        """Whether a request has ended, by its number."""
        return bool(self._has_ended[request])

    def fail_rest(self, reason: str) -> None:
        """End every request that has not ended: the run cannot go on."""
        for row, ended in enumerate(self._has_ended):
            if not ended:
                self._record(self._requests.request(row), "failed", reason)

    def _record(self, request: Request, status: str, reason: str) -> None:
        assert not self._has_ended[request.index], f"request {request.index} has ended before"
        self._has_ended[request.index] = 1
        self._left -= 1
        self.rows.add(request_row(request, status, reason, self._costs))


def request_row(request: Request, status: str, reason: str = "", costs: FrontEndCosts = NO_FRONT_END) -> RequestRow:
    """A request that has ended, as the table of requests has it: its tokens as they left a front end of such costs."""
    output = request.output_tokens
    first_s, last_s = sent_s(request, costs)
    finished = status == "finished"
    several = output > 1 and finished
    e2e_s = last_s - request.arrival_s if finished else math.nan
    queue_s = request.scheduled_s - request.arrival_s if finished else math.nan
    ttft_s = first_s - request.arrival_s if finished else math.nan
    tpot_s = (last_s - first_s) / (output - 1) if several else math.nan
    # By position: there is one of these per request.
    return RequestRow(
        request.index,
        request.arrival_s,
        request.prompt_tokens,
        output,
        request.cached_tokens,
        queue_s,
        ttft_s,
        tpot_s,
        request.max_itl_s if several else math.nan,
        e2e_s,
        e2e_s / output,
        request.migrations,
        request.preemptions,
        request.first_instance,
        request.last_instance,
        status,
        reason,
    )


def sent_s(request: Request, costs: FrontEndCosts) -> tuple[float, float]:
    """When a finished request's first and last token left a front end of such costs.

    Both are told by how many tokens came with the first: how many come with the last is taken to be the same.
    """
    beside = request.first_batch_tokens
    first_s = request.first_token_s + costs.first_token_s(beside)
    return first_s, max(first_s, request.last_token_s + costs.last_token_s(beside))
