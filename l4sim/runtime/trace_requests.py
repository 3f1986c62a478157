"""A trace as the requests that arrive: open-loop at their times, a session's next turns after the one before."""

from __future__ import annotations

from l4sim.engine.request import Request
from l4sim.errors import InputError
from l4sim.workload.trace import Trace


def shared_prefix_ids(trace: Trace, block_tokens: int) -> tuple[int, int]:
    """How prefix ids map to whole KV blocks: (take every n-th id, tokens that each one taken stands for).

    Raises:
        InputError: neither block size divides the other.
    """
    if trace.prefix is None:
        return 1, block_tokens
    hash_tokens = trace.prefix.block_tokens
    if hash_tokens % block_tokens == 0:
        return 1, hash_tokens
    if block_tokens % hash_tokens == 0:
        return block_tokens // hash_tokens, block_tokens
    raise InputError(
        f"{trace.name}: prefix blocks of {hash_tokens} tokens and KV blocks of {block_tokens} do not divide one "
        f"another; choose a --block-size that divides {hash_tokens}, or --no-prefix-caching"
    )


class TraceRequests:
    """Makes a trace's requests, by their rows."""

    def __init__(self, trace: Trace, block_tokens: int, *, prefix_caching: bool) -> None:
        """``block_tokens``: of a KV block.

        Raises:
            InputError: the trace's prefix blocks and the KV blocks do not fit together.
        """
        self._prefix = trace.prefix if prefix_caching else None
        shared = (1, block_tokens) if self._prefix is None else shared_prefix_ids(trace, block_tokens)
        self._id_stride, self._id_tokens = shared
        self._arrival_s: list[float] = trace.arrival_s.tolist()
        self._delay_s = trace.delay_s
        self._prompt_tokens: list[int] = trace.prompt_tokens.tolist()
        self._output_tokens: list[int] = trace.output_tokens.tolist()
        self._session: list[int] = trace.session.tolist()
        after = trace.after.tolist()
        self._open_rows = [row for row, before in enumerate(after) if before < 0]
        self._next_open = 0
        self._followers: dict[int, list[int]] = {}
        for row, before in enumerate(after):
            if before >= 0:
                self._followers.setdefault(before, []).append(row)

    def __len__(self) -> int:
        return len(self._arrival_s)

    @property
    def hash_block_tokens(self) -> int | None:
        """Tokens that one of a request's prefix ids stands for; None where requests carry none."""
        return None if self._prefix is None else self._id_tokens

    @property
    def next_open_s(self) -> float | None:
        """When the next request arrives that waits for no other; None after the last."""
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
        return [(follower, float(self._delay_s[follower])) for follower in self._followers.get(row, ())]

    def request(self, row: int, now_s: float | None = None) -> Request:
        """The request of a row, arriving now (default: at its time in the trace)."""
        prompt_tokens = self._prompt_tokens[row]
        arrival_s = self._arrival_s[row] if now_s is None else now_s
        ids = self._prefix_ids(row, prompt_tokens)
        return Request(row, arrival_s, prompt_tokens, self._output_tokens[row], self._session[row], ids)

    def _prefix_ids(self, row: int, prompt_tokens: int) -> tuple[int, ...]:
        """The ids of the prompt's blocks that are full, one per KV block or more."""
        if self._prefix is None:
            return ()
        start = self._prefix.offsets[row]
        full = prompt_tokens // self._id_tokens * self._id_stride
        return tuple(self._prefix.ids[start : start + full].tolist()[self._id_stride - 1 :: self._id_stride])
