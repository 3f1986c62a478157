"""From a format's columns to a `Trace`: what every format needs done once its fields are understood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.arrange import NEEDS_RATE, chain_arrival_s, take
from l4sim.workload.records import Records
from l4sim.workload.trace import FloatArray, IntArray, PrefixBlocks, Trace

SYNTHETIC_BLOCK_TOKENS = 64
"""Tokens per block where a loader numbers prefix blocks itself (ours): fine enough for turns of a few hundred."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Requests in file order, as a format's reader understands them; columns of equal length ``n``."""

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
    warnings: tuple[str, ...] = ()


def finish(draft: Draft, name: str) -> Trace:
    """The trace of ``draft``: outputs clamped, sessions numbered, ids made unique, rows in order of arrival."""
    rows = len(draft.prompt_tokens)
    after = np.full(rows, -1, dtype=np.int64) if draft.after is None else draft.after
    arrival_s = np.full(rows, np.nan) if draft.arrival_s is None else draft.arrival_s.copy()
    warnings = list(draft.warnings)

    timeless = (after < 0) & np.isnan(arrival_s)
    if timeless.any():
        arrival_s[timeless] = 0.0
        warnings.append(NEEDS_RATE)
    empty = int((draft.output_tokens == 0).sum())
    if empty:
        warnings.append(f"{empty} of {rows} requests have no output tokens: 1 is assumed")
    request_id, renamed = _unique(draft.request_id or [None] * rows)
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
        prompt_tokens=draft.prompt_tokens,
        output_tokens=np.maximum(draft.output_tokens, 1),
        session=_numbered(draft.session, rows),
        after=after,
        delay_s=np.full(rows, np.nan) if draft.delay_s is None else draft.delay_s,
        prefix=draft.prefix,
        warnings=tuple(warnings),
    )
    # A closed-loop row goes where the request that began its chain goes, so that it stays behind it.
    return take(trace, np.argsort(chain_arrival_s(trace), kind="stable"))


def prefix_blocks(
    records: Records, field: str, least: IntArray, most: IntArray, block_tokens: int
) -> PrefixBlocks | None:
    """The lists of block ids in ``field``; None if the file has none at all.

    ``least`` and ``most``, shape ``[n]``, are how many ids a row may have; a row with an empty list claims nothing
    about its prefix and is always accepted. Raises `InputError` for other counts and for ids that are no integers.
    """
    values = records.column(field)
    rows: list[list[int]] = []
    for row, ids in enumerate(values):
        if ids is None:
            rows.append([])
        elif isinstance(ids, list) and set(map(type, ids)) <= {int}:
            rows.append(ids)
        else:
            records.refuse(row, field, "a list of whole numbers")
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    if not counts.any():
        return None
    wrong = np.flatnonzero((counts > 0) & ((counts < least) | (counts > most)))
    if len(wrong):
        row = int(wrong[0])
        span = f"{most[row]}" if least[row] == most[row] else f"{least[row]} to {most[row]}"
        raise InputError(
            f"{records.where(row, field)} has {counts[row]} ids; "
            f"expected {span} of {block_tokens} tokens each for this prompt"
        )
    try:
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(counts.sum()))
    except OverflowError:
        row = next(row for row, ids in enumerate(rows) if any(not -(2**63) <= block < 2**63 for block in ids))
        records.refuse(row, field, "ids that fit 64 bits")
    return PrefixBlocks(ids, np.concatenate(([0], np.cumsum(counts))), block_tokens)


def blocks_of(prompt_tokens: IntArray, block_tokens: int) -> IntArray:
    """Blocks that each prompt takes, the last of them perhaps filled in part."""
    return -(-prompt_tokens // block_tokens)


def growing_prefix(prompt_tokens: IntArray, shares_with: IntArray, shared_tokens: IntArray) -> PrefixBlocks | None:
    """Block ids for prompts known to begin like an earlier one: ours, for formats that say so without ids.

    Row ``i`` begins with the first ``shared_tokens[i]`` prompt tokens of the earlier row ``shares_with[i]`` (-1 for
    none). Only whole blocks of `SYNTHETIC_BLOCK_TOKENS` count as shared. None if no row shares any.
    """
    if (shares_with < 0).all():
        return None
    counts = blocks_of(prompt_tokens, SYNTHETIC_BLOCK_TOKENS).tolist()
    rows: list[list[int]] = []
    fresh = 0
    for count, earlier, shared in zip(counts, shares_with.tolist(), shared_tokens.tolist(), strict=True):
        kept = rows[earlier][: min(shared // SYNTHETIC_BLOCK_TOKENS, count)] if earlier >= 0 else []
        rows.append(kept + list(range(fresh, fresh + count - len(kept))))
        fresh += count - len(kept)
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    return PrefixBlocks(ids, np.concatenate(([0], np.cumsum(counts))), SYNTHETIC_BLOCK_TOKENS)


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
