"""The longest inter-token latency of each request, without a record per token."""

from __future__ import annotations

from bisect import bisect_left


class LongestSince:
    """Answers "what was the longest value since commit c" for the commits counted so far.

    Every decoding request gets one token per commit, so that its longest inter-token latency is the longest commit
    since it began to decode. Only values that no later value exceeds can be an answer; they form a short falling
    sequence.
    """

    def __init__(self) -> None:
        self.count = 0
        """Commits so far; the next one has this number."""
        self._numbers: list[int] = []
        self._values: list[float] = []

    def add(self, value: float) -> None:
        """Count one commit, or several of which this was the longest."""
        numbers, values = self._numbers, self._values
        while values and values[-1] <= value:
            values.pop()
            numbers.pop()
        numbers.append(self.count)
        values.append(value)
        self.count += 1

    def since(self, number: int) -> float:
        """The longest value of commit ``number`` and those after it; 0 where there is none."""
        at = bisect_left(self._numbers, number)
        return self._values[at] if at < len(self._values) else 0.0
