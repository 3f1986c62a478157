"""Prefix block ids of requests: read from a file, or numbered by us where a format says what is shared without ids."""

from __future__ import annotations

from itertools import chain

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.raw_records import RawRecords
from l4sim.workload.trace import IntArray, PrefixBlocks

SYNTHETIC_BLOCK_TOKENS = 64
"""Tokens per block where we number the blocks ourselves (ours): fine enough for turns of a few hundred tokens."""


def read_prefix_blocks(
    records: RawRecords, field: str, least: IntArray, most: IntArray, block_tokens: int
) -> PrefixBlocks | None:
    """The lists of block ids in ``field``; None if the file has none at all.

    ``least`` and ``most``, shape ``[n]``, are how many ids each row may have; a row without ids says nothing about its
    prefix and is always accepted. Raises `InputError` for other counts and for ids that are no integers.
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


def block_counts(prompt_tokens: IntArray, block_tokens: int) -> IntArray:
    """How many blocks each prompt takes, a last one that it fills only in part included; shape ``[n]``."""
    return -(-prompt_tokens // block_tokens)


def shared_prefix_blocks(
    prompt_tokens: IntArray, shares_with: IntArray, shared_tokens: IntArray
) -> PrefixBlocks | None:
    """Block ids (ours) for formats that have none, but say how much of a prompt repeats an earlier one.

    Row ``i`` begins with the first ``shared_tokens[i]`` prompt tokens of the earlier row ``shares_with[i]`` (-1 for
    none). Only whole blocks of `SYNTHETIC_BLOCK_TOKENS` count as shared. None if no row shares any.
    """
    if (shares_with < 0).all():
        return None
    counts = block_counts(prompt_tokens, SYNTHETIC_BLOCK_TOKENS).tolist()
    rows: list[list[int]] = []
    fresh = 0
    for count, earlier, shared in zip(counts, shares_with.tolist(), shared_tokens.tolist(), strict=True):
        kept = rows[earlier][: min(shared // SYNTHETIC_BLOCK_TOKENS, count)] if earlier >= 0 else []
        rows.append(kept + list(range(fresh, fresh + count - len(kept))))
        fresh += count - len(kept)
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    return PrefixBlocks(ids, np.concatenate(([0], np.cumsum(counts))), SYNTHETIC_BLOCK_TOKENS)
