"""Requests as a format's reader has parsed them, and the `Trace` made of them: what all formats have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l4sim.workload.trace import FloatArray, IntArray, PrefixBlocks, Trace
from l4sim.workload.transform import NEEDS_RATE, chain_arrival_s, take
from l4sim.workload.turns import join_turns


@dataclass(frozen=True, slots=True)
class ParsedRequests:
    """The requests of a file, in its order, as columns of equal length ``n``: what a format's reader returns."""

    prompt_tokens: IntArray
    output_tokens: IntArray
    """>= 0; zeros become ones, with a warning."""
    arrival_s: FloatArray | None = None
    """NaN for closed-loop rows, and for rows that should be open-loop but have no time; None if no row has one."""
    request_id: Sequence[str | None] | None = None
    session: Sequence[str | None] | None = None
    after: IntArray | None = None
    """Row that a closed-loop row follows, always an earlier one; -1 for open-loop rows."""
    delay_s: FloatArray | None = None
    prefix: PrefixBlocks | None = None
    priority: IntArray | None = None
    warnings: tuple[str, ...] = ()


def to_trace(parsed: ParsedRequests, name: str) -> Trace:
    """The trace of parsed requests: empty outputs raised to 1 token, sessions numbered, request ids made unique, rows
    sorted by arrival. Its warnings say what was changed.
    """
    rows = len(parsed.prompt_tokens)
    after = np.full(rows, -1, dtype=np.int64) if parsed.after is None else parsed.after
    arrival_s = np.full(rows, np.nan) if parsed.arrival_s is None else parsed.arrival_s.copy()
    warnings = list(parsed.warnings)

    timeless = (after < 0) & np.isnan(arrival_s)
    if timeless.any():
        arrival_s[timeless] = 0.0
        warnings.append(NEEDS_RATE)
    empty = int((parsed.output_tokens == 0).sum())
    if empty:
        warnings.append(f"{empty} of {rows} requests have no output tokens: 1 is assumed")
    request_id, renamed = _unique(parsed.request_id or [None] * rows)
    if renamed:
        warnings.append(f"{renamed} of {rows} request ids repeat an earlier one: '#2', '#3', ... is added to them")

    open_s = arrival_s[after < 0]
    late = int((open_s < np.maximum.accumulate(open_s)).sum())
    if late:
        warnings.append(f"{late} of {rows} requests stand behind later ones in the file: sorted by arrival")

    trace = Trace(
        name=name,
        request_id=request_id,
        arrival_s=arrival_s,
        prompt_tokens=parsed.prompt_tokens,
        output_tokens=np.maximum(parsed.output_tokens, 1),
        session=_numbered(parsed.session, rows),
        after=after,
        delay_s=np.full(rows, np.nan) if parsed.delay_s is None else parsed.delay_s,
        prefix=parsed.prefix,
        priority=parsed.priority,
        warnings=tuple(warnings),
    )
    # A closed-loop row goes where the request that began its chain goes, so that it stays behind it.
    return join_turns(take(trace, np.argsort(chain_arrival_s(trace), kind="stable")))


def _unique(names: Sequence[str | None]) -> tuple[tuple[str, ...], int]:
    """Ids without repeats, and how many were renamed; a row without an id gets its number."""
    filled = [str(row) if name is None else name for row, name in enumerate(names)]
    seen = set(filled)
    if len(seen) == len(filled):
        return tuple(filled), 0
    times: Counter[str] = Counter()
    unique: list[str] = []
    renamed = 0
    for name in filled:
        times[name] += 1
        if times[name] == 1:
            unique.append(name)
            continue
        renamed += 1
        while f"{name}#{times[name]}" in seen:
            times[name] += 1
        seen.add(f"{name}#{times[name]}")
        unique.append(f"{name}#{times[name]}")
    return tuple(unique), renamed


def _numbered(labels: Sequence[str | None] | None, rows: int) -> IntArray:
    """Sessions as numbers in order of first appearance, -1 for none."""
    if labels is None:
        return np.full(rows, -1, dtype=np.int64)
    numbers: dict[str, int] = {}
    return np.array(
        [-1 if label is None else numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64
    )
