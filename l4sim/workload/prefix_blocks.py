"""Prefix block ids of requests as files have them, and what formats say of shared tokens without ids."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import chain

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.prefix_runs import chained
from l4sim.workload.raw_records import RawRecords
from l4sim.workload.trace import IntArray, PrefixBlocks

USUAL_BLOCK_TOKENS = tuple(1 << power for power in range(13))
"""Tokens per id that a file may have without saying so (ours): engines take powers of two."""


def read_ids(records: RawRecords, field: str) -> tuple[IntArray, IntArray] | None:
    """The ids in ``field``, numbered from 0, and how many each row has, shape ``[n]``; None if the file has none.

    An id names what is in its block: a whole number of any size and sign, or a text such as a hexadecimal hash. Raises
    `InputError` for anything else.
    """
    rows: list[list[Hashable]] = []
    for row, ids in enumerate(records.column(field)):
        if ids is None:
            rows.append([])
        elif isinstance(ids, list) and set(map(type, ids)) <= {int, str}:
            rows.append(ids)
        else:
            records.refuse(row, field, "a list of whole numbers or texts (hashes)")
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    if not counts.any():
        return None
    return _numbered(rows, int(counts.sum())), counts


def _numbered(rows: list[list[Hashable]], total: int) -> IntArray:
    try:
        return np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=total)
    except (OverflowError, ValueError):
        # Hashes of 64 bits and more, or in hexadecimal.
        numbers: dict[Hashable, int] = {}
        every = chain.from_iterable(rows)
        return np.fromiter((numbers.setdefault(id_, len(numbers)) for id_ in every), dtype=np.int64, count=total)


def read_prefix_blocks(
    records: RawRecords, field: str, least: IntArray, most: IntArray, block_tokens: int
) -> PrefixBlocks | None:
    """The lists of block ids in ``field``; None if the file has none at all.

    ``least`` and ``most``, shape ``[n]``, are how many ids each row may have; a row without ids says nothing about its
    prefix and is always accepted. Raises `InputError` for other counts and for what is no id.
    """
    read = read_ids(records, field)
    if read is None:
        return None
    ids, counts = read
    wrong = np.flatnonzero((counts > 0) & ((counts < least) | (counts > most)))
    if len(wrong):
        row = int(wrong[0])
        span = f"{most[row]}" if least[row] == most[row] else f"{least[row]} to {most[row]}"
        raise InputError(
            f"{records.where(row, field)} has {counts[row]} ids; "
            f"expected {span} of {block_tokens} tokens each for this prompt"
        )
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return PrefixBlocks(chained(ids, offsets), offsets, block_tokens)


def id_counts(records: RawRecords, field: str) -> IntArray:
    """How many ids each row has in ``field``, shape ``[n]``; 0 where that is no list."""
    return np.array([len(ids) if isinstance(ids, list) else 0 for ids in records.column(field)], dtype=np.int64)


def block_counts(prompt_tokens: IntArray, block_tokens: int) -> IntArray:
    """How many blocks each prompt takes, a last one that it fills only in part included; shape ``[n]``."""
    return -(-prompt_tokens // block_tokens)


def told_by_lengths(counts: IntArray, prompt_tokens: IntArray, standard: int) -> int | None:
    """Tokens per id, as the numbers of ids and the prompts' lengths tell; both of shape ``[n]``. None if they do not.

    The ``standard`` where it fits every row that has ids; else the only size that does, powers of two first. A last
    block that a prompt fills only in part has an id, or, where no size fits so, has none.
    """
    ids, tokens = counts[counts > 0], prompt_tokens[counts > 0]
    if not len(ids):
        return None
    several = ids > 1
    with_partial = (
        int((-(-tokens // ids)).max()),
        int(((tokens[several] - 1) // (ids[several] - 1)).min(initial=2**62)),
    )
    full_only = (int((tokens // (ids + 1)).max()) + 1, int((tokens // ids).min()))
    if with_partial[0] <= standard <= with_partial[1]:
        return standard
    for least, most in (with_partial, full_only):
        usual = [size for size in USUAL_BLOCK_TOKENS if least <= size <= most]
        if len(usual) == 1:
            return usual[0]
        if least == most:
            return least
    return None


def runs_of_rows(lengths: IntArray, shares_with: IntArray, shared_tokens: IntArray) -> PrefixBlocks | None:
    """Blocks (ours) for formats without ids that say how much of a request repeats an earlier one.

    Row ``i`` has ``lengths[i]`` tokens, prompt and answer, and begins with the first ``shared_tokens[i]`` tokens of the
    earlier row ``shares_with[i]`` (-1 for none); all have shape ``[n]``. None if no row shares any.
    """
    if (shares_with < 0).all():
        return None
    rows: list[tuple[list[int], list[int]]] = []
    reach: list[int] = []
    """Of each id, where its longest block ends."""
    for length, earlier, shared in zip(lengths.tolist(), shares_with.tolist(), shared_tokens.tolist(), strict=True):
        ids: list[int] = []
        ends: list[int] = []
        known = 0
        for id_, end in zip(*rows[earlier], strict=True) if earlier >= 0 else ():
            if known < min(shared, length):
                known = min(end, shared, length)
                ids.append(id_)
                ends.append(known)
        if ids and known == reach[ids[-1]]:
            # It goes on where all before it end: the same block, longer.
            ends[-1] = reach[ids[-1]] = length
        elif known < length:
            ids.append(len(reach))
            ends.append(length)
            reach.append(length)
        rows.append((ids, ends))
    offsets = np.concatenate(([0], np.cumsum([len(ids) for ids, _ in rows])))
    all_ids = np.fromiter(chain.from_iterable(ids for ids, _ in rows), dtype=np.int64)
    all_ends = np.fromiter(chain.from_iterable(ends for _, ends in rows), dtype=np.int64)
    return PrefixBlocks(all_ids, offsets, 1, all_ends)
