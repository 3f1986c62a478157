"""A trace: requests as columns, whatever file or generator they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PrefixBlocks:
    """What the tokens of requests have in common, as one ragged array of blocks.

    Request ``i`` has the ids ``ids[offsets[i]:offsets[i + 1]]``. An id stands for the tokens of its block *and all
    before them*: it follows the same ids wherever it stands, so two requests have the same tokens exactly as far as
    their leading ids agree. Where both have a last block in common, the shorter of the two is the beginning of the
    longer. What lies behind a request's last block is its own alone.
    """

    ids: IntArray
    """Shape ``[total]``, >= 0."""
    offsets: IntArray
    """Shape ``[n + 1]``, ascending, from 0 to ``len(ids)``."""
    block_tokens: int
    """Tokens that one id stands for (512 for Mooncake, 16 for Qwen-Bailian, 64 for WEKA)."""
    ends: IntArray | None = None
    """Shape ``[total]``: at which of its request's tokens each block ends, where blocks differ in size; the last may
    end within the answer. None: every block has ``block_tokens``, but for a last one that the prompt fills in part."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival, as columns of equal length ``n``.

    A request arrives in one of two ways: *open-loop* at ``arrival_s`` (``after`` is -1), or *closed-loop*, a session's
    next turn, ``delay_s`` after request ``after`` has finished (``arrival_s`` is then NaN). Rows are sorted by
    ``arrival_s``; a closed-loop row stands somewhere behind the row that it follows.

    With a ``concurrency`` open-loop rows have no times (all are 0): each is sent, in this order, when one of so many
    that were sent before has ended, with the turns behind it.
    """

    name: str
    request_id: tuple[str, ...]
    """Unique; the source's own where it has one, else the row number."""
    arrival_s: FloatArray
    """Seconds from the trace's start, >= 0; NaN for closed-loop rows."""
    prompt_tokens: IntArray
    """>= 1."""
    output_tokens: IntArray
    """>= 1."""
    session: IntArray
    """Session number, -1 for none."""
    after: IntArray
    """Row of the session's previous request that this one waits for, -1 for open-loop rows."""
    delay_s: FloatArray
    """Seconds between the previous answer's end and this arrival; NaN for open-loop rows."""
    prefix: PrefixBlocks | None = None
    priority: IntArray | None = None
    """Whom priority scheduling prefers, the lowest first; None: all alike."""
    concurrency: int | None = None
    """Requests, or sessions, under way at a time; None: they arrive by their times."""
    warnings: tuple[str, ...] = field(default=())
    """What the loader changed or found doubtful, one line each (rows clamped, estimates used)."""

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything that a simulation depends on: names and request ids do not count."""
        columns = [self.arrival_s, self.prompt_tokens, self.output_tokens, self.session, self.after, self.delay_s]
        if self.prefix is not None:
            columns += [self.prefix.ids, self.prefix.offsets, np.array(self.prefix.block_tokens)]
            columns += [] if self.prefix.ends is None else [self.prefix.ends]
        columns += [] if self.priority is None else [self.priority]
        columns += [] if self.concurrency is None else [np.array(self.concurrency)]
        digest = hashlib.sha256()
        for column in columns:
            digest.update(column.tobytes())
        return digest.hexdigest()
