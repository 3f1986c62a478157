"""Prefixes as runs: blocks that nobody tells apart are one, and sessions' turns share to the token.

A run of blocks that always follow one another is one block of variable size, so that a prompt of a hundred thousand
tokens is a few numbers, however fine its ids.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from l4sim.workload.trace import IntArray, PrefixBlocks


def ends_of(prefix: PrefixBlocks, prompt_tokens: IntArray) -> IntArray:
    """At which of its request's tokens each block ends; shape ``[total]``."""
    if prefix.ends is not None:
        return prefix.ends
    counts = np.diff(prefix.offsets)
    position = np.arange(len(prefix.ids)) - np.repeat(prefix.offsets[:-1], counts)
    return np.minimum((position + 1) * prefix.block_tokens, np.repeat(prompt_tokens, counts))


def starts_of(offsets: IntArray, ends: IntArray) -> IntArray:
    """At which of its request's tokens each block begins; shape ``[total]``."""
    starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends.copy()
    first = offsets[:-1]
    starts[first[np.diff(offsets) > 0]] = 0
    return starts


def chained(ids: IntArray, offsets: IntArray) -> IntArray:
    """Ids of block contents as ids that stand for all before them too, >= 0 and not much above their number.

    Ids that always follow the same one are so already. Shape ``[total]``.
    """
    dense = ids
    if len(ids) and not 0 <= ids.min() <= ids.max() < 2 * len(ids):
        dense = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    before = np.concatenate(([-1], dense[:-1])) if len(dense) else dense
    before[offsets[:-1][np.diff(offsets) > 0]] = -1
    follows = np.empty(int(dense.max(initial=-1)) + 1, dtype=np.int64)
    follows[dense] = before
    if np.array_equal(follows[dense], before):
        return dense
    known: dict[tuple[int, int], int] = {}
    numbered = []
    bounds = offsets.tolist()
    values = dense.tolist()
    for start, end in pairwise(bounds):
        last = -1
        for value in values[start:end]:
            last = known.setdefault((last, value), len(known))
            numbered.append(last)
    return np.array(numbered, dtype=np.int64)


def merged(prefix: PrefixBlocks, prompt_tokens: IntArray) -> PrefixBlocks:
    """The same prefixes in as few blocks as tell them apart: one that nothing else follows joins the one behind it."""
    ids, offsets = prefix.ids, prefix.offsets
    ends = ends_of(prefix, prompt_tokens)
    if not len(ids):
        return PrefixBlocks(ids, offsets, prefix.block_tokens, ends)
    counts = np.diff(offsets)
    before = np.concatenate(([-1], ids[:-1]))
    before[offsets[:-1][counts > 0]] = -1
    size = int(ids.max()) + 1
    parent = np.full(size, -1, dtype=np.int64)
    parent[ids] = before
    children = np.bincount(parent[parent >= 0], minlength=size)
    reach = np.zeros(size, dtype=np.int64)
    np.maximum.at(reach, ids, ends)
    begins = (before < 0) | (children[before] > 1) | (starts_of(offsets, ends) < reach[before])
    # A merged block has the id of its first and ends where its last does.
    is_last = np.append(begins[1:], True)
    is_last[offsets[1:][counts > 0] - 1] = True
    numbers = np.concatenate(([0], np.cumsum(begins)))
    _, renumbered = np.unique(ids[begins], return_inverse=True)
    return PrefixBlocks(renumbered.astype(np.int64), numbers[offsets], prefix.block_tokens, ends[is_last])


def blocks_of(prefix: PrefixBlocks, lengths: IntArray, block_tokens: int) -> PrefixBlocks:
    """The prefixes in blocks of ``block_tokens``, the last perhaps partial; those within ``lengths``, shape ``[n]``.

    Two blocks have the same id where all tokens to the shorter one's end are the same. Ids count from 0, in order of
    appearance.
    """
    merged_ = merged(prefix, lengths)
    ends = merged_.ends
    assert ends is not None
    counts = np.diff(merged_.offsets)
    starts = starts_of(merged_.offsets, ends)
    ends = np.minimum(ends, np.repeat(lengths, counts))
    known = np.zeros(len(lengths), dtype=np.int64)
    some = counts > 0
    known[some] = ends[merged_.offsets[1:][some] - 1]
    per_row = -(-known // block_tokens)
    offsets = np.concatenate(([0], np.cumsum(per_row)))
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], per_row)
    last_token = np.minimum((position + 1) * block_tokens, np.repeat(known, per_row)) - 1
    # The run that holds a token: the last of its row that begins at or before it.
    stride = int(lengths.max(initial=0)) + 1
    row_of_run = np.repeat(np.arange(len(lengths)), counts)
    row_of_block = np.repeat(np.arange(len(lengths)), per_row)
    run = (
        np.searchsorted(
            row_of_run * stride + np.minimum(starts, stride - 1), row_of_block * stride + last_token, "right"
        )
        - 1
    )
    most = int(per_row.max(initial=0)) + 1
    _, first, ids = np.unique(merged_.ids[run] * most + position, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return PrefixBlocks(rank[ids], offsets, block_tokens)


def cut(prefix: PrefixBlocks, prompt_tokens: IntArray, lengths: IntArray) -> PrefixBlocks:
    """The prefixes of requests that are cut to ``lengths``, of ``prompt_tokens`` before; both of shape ``[n]``."""
    counts = np.diff(prefix.offsets)
    ends = ends_of(prefix, prompt_tokens)
    limits = np.repeat(lengths, counts)
    kept = starts_of(prefix.offsets, ends) < limits
    offsets = np.concatenate(([0], np.cumsum(kept)))[prefix.offsets]
    return PrefixBlocks(prefix.ids[kept], offsets, prefix.block_tokens, np.minimum(ends, limits)[kept])
