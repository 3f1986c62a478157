"""Hypothesis strategies for valid traces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from hypothesis import strategies as st

from l4sim.workload.trace import PrefixBlocks, Trace


@st.composite
def traces(draw: st.DrawFn, *, block_tokens: int = 16) -> Trace:
    """Up to 12 requests: alone, open-loop in sessions, or waiting for their session's last; with blocks or without."""
    rows = draw(st.integers(1, 12))
    arrivals = iter(sorted(draw(st.lists(st.floats(0, 1e6), min_size=rows, max_size=rows))))
    last: dict[int, int] = {}
    arrival_s, session, after, delay_s = [], [], [], []
    for row in range(rows):
        member = draw(st.integers(-1, 2))
        waits = member in last and draw(st.booleans())
        after.append(last[member] if waits else -1)
        arrival_s.append(np.nan if waits else next(arrivals))
        delay_s.append(draw(st.floats(0, 1e6)) if waits else np.nan)
        session.append(member)
        if member >= 0:
            last[member] = row
    prompts = draw(st.lists(st.integers(1, 2_000), min_size=rows, max_size=rows))
    outputs = draw(st.lists(st.integers(1, 100_000_000), min_size=rows, max_size=rows))
    return Trace(
        name=draw(st.text(max_size=8)),
        request_id=tuple(f"r{row}" for row in range(rows)),
        arrival_s=np.array(arrival_s),
        prompt_tokens=np.array(prompts),
        output_tokens=np.array(outputs),
        session=np.array(session),
        after=np.array(after),
        delay_s=np.array(delay_s),
        prefix=draw(st.none() | prefixes(prompts, block_tokens)),
        warnings=tuple(draw(st.lists(st.text(max_size=8), max_size=2))),
    )


@st.composite
def prefixes(draw: st.DrawFn, prompts: list[int], block_tokens: int) -> PrefixBlocks:
    """Ids for all blocks of each prompt: some blocks of an earlier row, then new ones."""
    ids: list[list[int]] = []
    fresh = 0
    for prompt in prompts:
        blocks = -(-prompt // block_tokens)
        earlier = draw(st.sampled_from(ids)) if ids else []
        kept = earlier[: draw(st.integers(0, min(blocks, len(earlier))))]
        ids.append(kept + list(range(fresh, fresh + blocks - len(kept))))
        fresh += blocks - len(kept)
    offsets = np.cumsum([0, *map(len, ids)])
    return PrefixBlocks(np.array([block for row in ids for block in row], dtype=np.int64), offsets, block_tokens)


def alike(one: Sequence[object], other: Sequence[object]) -> int:
    """With how many equal items two sequences begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
