"""A trace as the requests that arrive: at their times, or as others end."""

from __future__ import annotations

from l4sim.engine.request import Request
from l4sim.runtime.block_keys import BlockKeys
from l4sim.runtime.closed_loop import ClosedLoop
from l4sim.workload.trace import Trace


class TraceRequests:
    """Makes a trace's requests, by their rows."""

    def __init__(self, trace: Trace, block_tokens: int, *, prefix_caching: bool) -> None:
        """``block_tokens``: of a KV block."""
        self._keys = BlockKeys(trace, block_tokens) if prefix_caching else None
        self._arrival_s: list[float] = trace.arrival_s.tolist()
        self._delay_s = trace.delay_s
        self._prompt_tokens: list[int] = trace.prompt_tokens.tolist()
        self._output_tokens: list[int] = trace.output_tokens.tolist()
        self._session: list[int] = trace.session.tolist()
        self._priority = trace.priority
        after = trace.after.tolist()
        self.loop = None if trace.concurrency is None else ClosedLoop(after, trace.concurrency)
        """Who is sent when another has ended; None: rows arrive at their times."""
        self._open_rows = [row for row, before in enumerate(after) if before < 0] if self.loop is None else []
        self._next_open = 0
        self._followers: dict[int, list[int]] = {}
        for row, before in enumerate(after):
            if before >= 0:
                self._followers.setdefault(before, []).append(row)

    def __len__(self) -> int:
        return len(self._arrival_s)

    @property
    def next_open_s(self) -> float | None:
        """When the next request arrives that waits for no other; None after the last, and in a closed loop."""
        rows = self._open_rows
        return self._arrival_s[rows[self._next_open]] if self._next_open < len(rows) else None

    def prompt_tokens(self, row: int) -> int:
        """How long a row's prompt is."""
        return self._prompt_tokens[row]

    def pop_open(self) -> int:
        """The row of that request, which is then done with."""
        self._next_open += 1
        return self._open_rows[self._next_open - 1]

    def following(self, row: int) -> list[tuple[int, float]]:
        """Rows that arrive once this one has ended, and how many seconds after it."""
        followers = self._followers.get(row)
        return [(follower, float(self._delay_s[follower])) for follower in followers] if followers else []

    def request(self, row: int, now_s: float | None = None) -> Request:
        """The request of a row, arriving now (default: at its time in the trace)."""
        arrival_s = self._arrival_s[row] if now_s is None else now_s
        keys = () if self._keys is None else self._keys.of(row)
        return Request(
            row,
            arrival_s,
            self._prompt_tokens[row],
            self._output_tokens[row],
            self._session[row],
            keys,
            0 if self._priority is None else int(self._priority[row]),
        )

    def prefix_ids(self, row: int) -> tuple[int, ...]:
        """What routers see of a row's prompt; empty without prefix caching."""
        return () if self._keys is None else self._keys.prefix_ids(row)
