"""Who is admitted next: the waiting queue by each of vLLM's scheduling policies (`v1/core/sched/request_queue.py`)."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Collection
from typing import Protocol

from l4sim.engine.request import Request


class WaitingQueue(Collection[Request], Protocol):
    """Requests that wait, in the order in which they are admitted."""

    def append(self, request: Request) -> None:
        """Queue a newcomer."""
        ...

    def appendleft(self, request: Request) -> None:
        """Queue a request that was preempted."""
        ...

    def remove(self, request: Request) -> None:
        """Take a request out, wherever it stands."""
        ...

    def __getitem__(self, position: int, /) -> Request:
        """The request at a position, 0 for the head."""
        ...

    def first(self, now_s: float) -> Request | None:
        """The first of those that had come by ``now_s``; None if there is none."""
        ...


class FirstComeFirstServed(deque[Request]):
    """In order of arrival, and before them whoever was preempted."""

    def first(self, now_s: float) -> Request | None:
        """The first of those that had come by ``now_s``; None if there is none."""
        return self[0] if self and self[0].ready_s <= now_s else None


class ByPriority(list[Request]):
    """The lowest `Request.priority` first, of equal ones the earliest arrival; a preemption changes neither."""

    def append(self, request: Request) -> None:
        """Queue a request in its place."""
        insort(self, request, key=urgency)

    appendleft = append

    def first(self, now_s: float) -> Request | None:
        """The first of those that had come by ``now_s``; None if there is none."""
        return next((request for request in self if request.ready_s <= now_s), None)


def urgency(request: Request) -> tuple[int, float, int]:
    """What priority scheduling sorts by, the most urgent first. vLLM's third criterion is the request's random name."""
    return request.priority, request.arrival_s, request.index


QUEUES: dict[str, type[FirstComeFirstServed] | type[ByPriority]] = {
    "fcfs": FirstComeFirstServed,
    "priority": ByPriority,
}
"""By scheduling policy, as vLLM names them."""
