"""How FlashAttention-2 and -3, as vLLM calls them, split a batch over a GPU.

Sources: flash-attention's ``csrc/flash_attn/flash_api.cpp`` (FA2), ``hopper/heuristics.h``,
``hopper/flash_prepare_scheduler.cu`` (FA3).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import NamedTuple

import numpy as np

FA2_BLOCK_TOKENS = 128
"""KV tokens of FA2's blocks at head_dim 128."""
FA2_TILE_ROWS = 64
"""Rows of an FA2 query tile in the kernel that can split, which paged KV always takes."""
FA3_BLOCK_TOKENS = 128
"""KV tokens of FA3's blocks at head_dim 128 when causal or paged without TMA, as vLLM calls it (176 otherwise)."""
FA3_TILE_ROWS = 128
"""Rows (query tokens times group size) of an FA3 query tile at head_dim 128."""

_MAX_SPLITS = 128
FA3_MAX_BATCH = 992
"""Most requests for which FA3 decides about splits on the GPU; above it nothing is split."""
_L2_BYTES = 50 * 1024 * 1024
"""What FA3 takes for the size of L2, on every GPU."""


class Splits(NamedTuple):
    """How many splits each request gets, and how long they are."""

    blocks: list[int]
    """KV blocks of each request."""
    splits: list[int]
    """Splits that the kernel launches for each request; trailing ones may be empty."""
    split_blocks: list[int]
    """KV blocks of each request's longest split."""
    bound: int
    """The most splits allowed; above 1 the kernel that can split runs, and the merge kernel after it."""


def fa2_splits(longest_tokens: int, *, batch: int, kv_heads: int, sms: int, rows: int = 1) -> int:
    """Number of splits that FA2 gives to *every* request of a decode batch: the longest one sets it.

    ``longest_tokens`` >= 1 is the longest context, ``batch`` the number of requests, ``rows`` the packed query rows of
    a request (its group size).
    """
    tiles = batch * kv_heads * -(-rows // FA2_TILE_ROWS)
    return _fa2_bound(tiles, 2 * sms, -(-longest_tokens // FA2_BLOCK_TOKENS))


def fa3_splits(
    context_tokens: Sequence[int],
    *,
    kv_heads: int,
    sms: int,
    query_rows: Sequence[int] | None = None,
    block_tokens: int = FA3_BLOCK_TOKENS,
    bound: int | None = None,
    head_dim: int = 128,
    causal: bool = True,
) -> Splits:
    """Split a varlen batch as FA3 does: a bound set by the longest request, then a number for each request.

    ``context_tokens`` has one entry for each request, >= 1; ``query_rows`` (default one tile each) are query tokens
    times group size. ``bound`` replaces FA3's own (vLLM passes 32 under CUDA graphs).
    """
    # Plain integers: batches are small, and this is the inner loop of every simulation.
    blocks = [-(-tokens // block_tokens) for tokens in context_tokens]
    tiles = None if query_rows is None else [-(-rows // FA3_TILE_ROWS) for rows in query_rows]
    if bound is None:
        bound = fa3_bound(
            max(context_tokens),
            kv_heads=kv_heads,
            sms=sms,
            tiles=1 if tiles is None else max(tiles),
            block_tokens=block_tokens,
            head_dim=head_dim,
            causal=causal,
        )
    if bound == 1 or len(blocks) > FA3_MAX_BATCH:
        return Splits(blocks, [1] * len(blocks), blocks, 1)
    total = sum(blocks) if tiles is None else sum(map(mul, tiles, blocks))
    per_sm = _blocks_per_sm(total, kv_heads, sms)
    most = per_sm * bound
    splits = [-(-count // per_sm) if count <= most else bound for count in blocks]
    return Splits(blocks, splits, [-(-count // parts) for count, parts in zip(blocks, splits, strict=True)], bound)


def fa3_bound(
    longest_tokens: int,
    *,
    kv_heads: int,
    sms: int,
    tiles: int = 1,
    block_tokens: int = FA3_BLOCK_TOKENS,
    head_dim: int = 128,
    causal: bool = True,
) -> int:
    """The most splits that FA3 allows a request of a varlen batch, as if the longest request were alone.

    ``tiles`` is the number of query tiles of the request with most rows; K and V are 2 bytes per element.
    """
    kv_head_bytes = longest_tokens * 2 * head_dim * 2
    if kv_heads * tiles >= 0.8 * sms:
        if kv_head_bytes > _L2_BYTES and tiles >= 2 * sms and not causal:
            return min(-(-kv_head_bytes // _L2_BYTES), _MAX_SPLITS)
        return 1
    blocks = -(-longest_tokens // block_tokens)
    if blocks <= 4:
        return 1
    return _fewest_efficient(kv_heads * tiles, sms, range(1, min(_MAX_SPLITS, sms, blocks) + 1))


@lru_cache(maxsize=1 << 16)
def _blocks_per_sm(blocks: int, kv_heads: int, sms: int) -> int:
    # The device computes this in float32; doubles would differ where the quotient is close to an integer.
    return int(np.ceil(np.float32(blocks) * np.float32(1.1) * np.float32(kv_heads) / np.float32(sms)))


@lru_cache(maxsize=1 << 16)
def _fa2_bound(tiles: int, slots: int, blocks: int) -> int:
    if tiles >= 0.8 * slots:
        return 1
    most = min(_MAX_SPLITS, slots, blocks)
    # A split more that leaves the blocks per split as they were would only add an empty split.
    eligible = (s for s in range(1, most + 1) if s == 1 or -(-blocks // s) != -(-blocks // (s - 1)))
    return _fewest_efficient(tiles, slots, tuple(eligible))


@lru_cache(maxsize=1 << 16)
def _fewest_efficient(tiles: int, slots: int, candidates: tuple[int, ...] | range) -> int:
    """The fewest splits whose last wave is filled to within 85 % of the best candidate's."""
    efficiency = [tiles * s / slots / -(-tiles * s // slots) for s in candidates]
    threshold = 0.85 * max(efficiency)
    return next(s for s, value in zip(candidates, efficiency, strict=True) if value >= threshold)
