"""A closed loop: so many requests, or sessions, at a time; the next one is sent when one of them ends."""

from __future__ import annotations

from collections.abc import Sequence


class ClosedLoop:
    """Whose turn it is, by rows of a trace. A session keeps its place until all its turns have ended."""

    def __init__(self, after: Sequence[int], concurrency: int) -> None:
        """``after``: of each row the one that it waits for, -1 for none."""
        self.concurrency = concurrency
        self._session: list[int] = []
        """Of each row the one that its session begins with."""
        for row, before in enumerate(after):
            self._session.append(row if before < 0 else self._session[before])
        self._left = [0] * len(after)
        """Of each session's first row, how many of its rows have not ended."""
        for first in self._session:
            self._left[first] += 1
        self._firsts = [row for row, before in enumerate(after) if before < 0]
        self._sent = 0
        self.under_way = 0
        """Sessions that have been sent and are not over."""

    @property
    def unsent(self) -> int:
        """Sessions that wait for a place."""
        return len(self._firsts) - self._sent

    def begin(self) -> list[int]:
        """The rows that are sent first, as many as there are places."""
        return [self._send() for _ in range(min(self.concurrency, self.unsent))]

    def ended(self, row: int) -> int | None:
        """The row that is sent now that another has ended, in whichever way; None if no place is free or none waits."""
        session = self._session[row]
        self._left[session] -= 1
        if self._left[session]:
            return None
        self.under_way -= 1
        return self._send() if self.unsent else None

    def _send(self) -> int:
        self._sent += 1
        self.under_way += 1
        return self._firsts[self._sent - 1]
