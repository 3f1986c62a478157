"""How FlashInfer 0.6.8 splits a batch over a GPU: its four planners, as pure functions of lengths and shapes.

Source: FlashInfer's own C++ scheduler (flashinfer/attention/scheduler.cuh); the decode planners and BatchAttention are
compared with its answers entry by entry in the tests.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError

IntArray = NDArray[np.int64]

CUDA_CORE_BLOCKS_PER_SM = {1: 6, 2: 9, 3: 9, 4: 8, 8: 9}
"""Group size -> resident blocks per SM of the CUDA-core decode kernel on H200, as ``l4sim profile check`` read them
from the kernel's own plan there."""

_MIN_CHUNK_TOKENS = 128
_CUDA_CORE_THREADS = 128


@dataclass(frozen=True, slots=True)
class CudaCorePlan:
    """The split of a decode batch on CUDA cores; one thread block per (chunk, KV head)."""

    split: bool
    """Whether partial results are merged by a second kernel."""
    chunk_tokens: int | None
    """Longest chunk, a multiple of the page; None when every request is one chunk because the batch fills the GPU."""
    chunks: int
    """Chunks over all requests, KV heads not counted."""


@dataclass(frozen=True, slots=True)
class TensorCorePlan:
    """The split of a batch on tensor cores (FA2 template); one thread block per (query tile, chunk, KV head)."""

    split: bool
    """Whether partial results are merged by a second kernel."""
    chunk_tokens: int
    """Longest chunk, a multiple of the page; the longest request, rounded up to pages, when nothing is split."""
    chunks: int
    """Query tiles times chunks over all requests, KV heads not counted."""
    tile_q: int
    """Rows of a query tile: query tokens times the group size."""


@dataclass(frozen=True, slots=True)
class BatchAttentionPlan:
    """The work that the persistent BatchAttention kernel gives to each of its clusters."""

    chunk_tokens: int
    """Longest chunk of a decoding request (query tiles of 16 rows)."""
    work_items: int
    """(request, query tile, chunk, KV head) tuples over all clusters."""
    cluster_tokens: IntArray
    """Shape ``[clusters]``: KV tokens that each cluster reads."""
    cluster_items: IntArray
    """Shape ``[clusters]``: work items of each cluster."""

    @property
    def busiest_tokens(self) -> int:
        """KV tokens of the cluster that reads most."""
        return int(self.cluster_tokens.max())

    @property
    def mean_tokens(self) -> float:
        """KV tokens of the mean cluster."""
        return float(self.cluster_tokens.mean())


@dataclass(frozen=True, slots=True)
class PrefillPlan:
    """The work that the FA3 prefill kernel gives to each SM, for one query head or for all."""

    tile_q: int
    """Query tokens of a tile."""
    same_for_all_heads: bool
    """Whether ``sm_tokens`` is one query head's schedule, repeated for each (more than 4,096 tiles per head)."""
    tiles: int
    """Query tiles in the schedule."""
    sm_tokens: IntArray
    """Shape ``[sms]``: KV tokens that each SM visits."""
    sm_tiles: IntArray
    """Shape ``[sms]``: query tiles of each SM."""


def plan_cuda_core(
    context_tokens: Sequence[int] | IntArray,
    *,
    kv_heads: int,
    page_tokens: int,
    sms: int,
    blocks_per_sm: int,
    cuda_graph: bool = False,
) -> CudaCorePlan:
    """Split a decode batch as ``BatchDecodeWithPagedKVCacheWrapper(use_tensor_cores=False)`` does.

    ``context_tokens`` has shape ``[B]``, each >= 1. ``blocks_per_sm`` is the kernel's occupancy (see
    ``CUDA_CORE_BLOCKS_PER_SM``). Under CUDA graphs every batch below the grid counts as split.

    Raises InputError if the batch is empty or a length is below 1.
    """
    lengths = _checked(context_tokens)
    pages = -(-lengths // page_tokens)
    batch = len(lengths)
    grid = blocks_per_sm * sms
    if batch * kv_heads >= grid:
        return CudaCorePlan(split=False, chunk_tokens=None, chunks=batch)
    chunk_pages = _smallest(
        lambda m: kv_heads * int((-(-pages // m)).sum()),
        max(_MIN_CHUNK_TOKENS // page_tokens, 1),
        int(pages.max()),
        grid,
    )
    chunks = int((-(-pages // chunk_pages)).sum())
    return CudaCorePlan(split=cuda_graph or chunks != batch, chunk_tokens=chunk_pages * page_tokens, chunks=chunks)


def plan_tensor_core(
    context_tokens: Sequence[int] | IntArray,
    query_tokens: Sequence[int] | IntArray | None = None,
    *,
    kv_heads: int,
    group_size: int,
    head_dim: int,
    page_tokens: int,
    sms: int,
    cuda_graph: bool = False,
) -> TensorCorePlan:
    """Split a batch as FlashInfer's FA2 template does: tensor-core decode, and prefill before Hopper.

    ``context_tokens`` and ``query_tokens`` (default: one each, decode) have shape ``[B]``, each >= 1; rows of a query
    tile are query tokens times ``group_size``. Under CUDA graphs the rows are taken as not padded, and every batch
    counts as split.

    Raises InputError if the batch is empty or a length is below 1.
    """
    lengths = _checked(context_tokens).tolist()
    batch = len(lengths)
    queries = [1] * batch if query_tokens is None else _checked(query_tokens).tolist()
    # Under a graph the planner knows the rows alone, and assumes that one request has all that others can spare.
    tile_q = _tile_rows(
        (sum(queries) - batch + 1) * group_size if cuda_graph else sum(queries) * group_size // batch, head_dim
    )
    tiles = [-(-query * group_size // tile_q) for query in queries]
    tile_lengths = list(chain.from_iterable(map(repeat, lengths, tiles)))
    chunk_tokens = page_tokens * _tensor_core_chunk_pages(tile_lengths, page_tokens, 2 * sms // kv_heads)
    return TensorCorePlan(
        split=cuda_graph or chunk_tokens < max(lengths),
        chunk_tokens=chunk_tokens,
        chunks=sum([count * -(-length // chunk_tokens) for count, length in zip(tiles, lengths, strict=True)]),
        tile_q=tile_q,
    )


def tensor_core_decode_chunk_tokens(
    context_tokens: Sequence[int], *, kv_heads: int, group_size: int, head_dim: int, page_tokens: int, sms: int
) -> int:
    """``plan_tensor_core(...).chunk_tokens`` of a decode alone, for lengths known to be valid: once per iteration."""
    tiles = -(-group_size // _tile_rows(group_size, head_dim))
    return page_tokens * _tensor_core_chunk_pages(context_tokens, page_tokens, 2 * sms // kv_heads // tiles)


def cuda_core_tile_tokens(group_size: int, head_dim: int) -> int:
    """KV tokens that a block of the CUDA-core decode kernel works on at once, by its layout of threads."""
    threads = head_dim // 8 * group_size
    return group_size * max(_CUDA_CORE_THREADS // threads, 1) * (4 if group_size == 1 else 1)


def kv_tile_tokens(tile_q: int) -> int:
    """KV tokens of a tile of the FA2 template, at two blocks per SM and head_dim 128, by rows of its query tile."""
    return 64 if tile_q == 128 else 128


def query_tile_ends(context_tokens: int, query_tokens: int, tile_q: int, group_size: int) -> IntArray:
    """KV tokens that each query tile of a causal request sees, first tile first; shape ``[tiles]``."""
    last_rows = np.arange(tile_q, query_tokens * group_size + tile_q, tile_q)
    ends = (context_tokens - query_tokens) + (last_rows + (group_size - 1)) // group_size
    ends[-1] = context_tokens
    return ends


def tensor_core_blocks(
    plan: TensorCorePlan, context_tokens: Sequence[int], query_tokens: Sequence[int], group_size: int
) -> IntArray:
    """KV tokens that each block of a causal batch visits, for one KV head and in order of issue.

    Blocks are issued by request, query tile and chunk, then all of them for the next KV head. A chunk that lies beyond
    what its query tile sees has a block that visits nothing.
    """
    blocks = []
    for length, query in zip(context_tokens, query_tokens, strict=True):
        ends = query_tile_ends(length, query, plan.tile_q, group_size)
        if length > plan.chunk_tokens:
            after_start = ends[:, None] - np.arange(0, length, plan.chunk_tokens)
            ends = np.minimum(np.maximum(after_start, 0), plan.chunk_tokens).ravel()
        blocks.append(ends)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def plan_batch_attention(
    context_tokens: Sequence[int] | IntArray,
    query_tokens: Sequence[int] | IntArray | None = None,
    *,
    kv_heads: int,
    group_size: int,
    head_dim: int,
    sms: int,
) -> BatchAttentionPlan:
    """Balance a causal batch over clusters as the persistent ``BatchAttention`` does.

    ``context_tokens`` and ``query_tokens`` (default: one each, decode) have shape ``[B]``, each >= 1, and a request's
    context includes its query tokens.

    Raises InputError if the batch is empty or a length is below 1.
    """
    lengths = _checked(context_tokens)
    queries = np.ones(len(lengths), np.int64) if query_tokens is None else _checked(query_tokens)
    clusters = sms if head_dim >= 256 else 2 * sms
    # Requests with many rows come first, in tiles of 128 rows; the others share the same clusters in tiles of 16.
    tasks: dict[int, list[int]] = {128: [], 16: []}
    for length, query in zip(lengths.tolist(), queries.tolist(), strict=True):
        rows = query * group_size
        tile_q = 128 if rows > 16 else 16
        tiles = -(-rows // tile_q)
        tasks[tile_q] += [_visible(length, query, tile, tile_q, group_size) for tile in range(tiles)]
    limit = batch_attention_chunk_tokens(kv_heads * sum(map(sum, tasks.values())), clusters)
    limits = {128: limit // min(kv_heads, 2), 16: limit}

    heap = [_Cluster(0.0, index) for index in range(clusters)]
    tokens = [0] * clusters
    items = [0] * clusters
    for tile_q, visible in tasks.items():
        for remaining in visible:
            for start in range(0, remaining, limits[tile_q]):
                chunk = min(limits[tile_q], remaining - start)
                cost = 2 * tile_q + chunk
                for _ in range(kv_heads):
                    least = heapq.heappop(heap)
                    tokens[least.index] += chunk
                    items[least.index] += 1
                    # The planner pops and pushes: heapq.heapreplace would break ties otherwise.
                    heapq.heappush(heap, _Cluster(least + cost, least.index))
    return BatchAttentionPlan(
        chunk_tokens=limit,
        work_items=sum(items),
        cluster_tokens=np.array(tokens, np.int64),
        cluster_items=np.array(items, np.int64),
    )


def batch_attention_chunk_tokens(total_tokens: int, clusters: int) -> int:
    """BatchAttention's longest chunk of a decode, for KV tokens summed over requests, query tiles and KV heads."""
    share = -(-total_tokens // clusters)
    return 128 if share <= 128 else -(-share // 256) * 256


def plan_fa3_prefill(
    query_tokens: Sequence[int] | IntArray,
    context_tokens: Sequence[int] | IntArray,
    *,
    heads: int,
    head_dim: int,
    sms: int,
) -> PrefillPlan:
    """Spread causal query tiles over SMs as FlashInfer's FA3 prefill on Hopper does; KV is never split.

    ``query_tokens`` and ``context_tokens`` have shape ``[B]``, each >= 1; a context includes its query tokens.

    Raises InputError if the batch is empty or a length is below 1.
    """
    queries, lengths = _checked(query_tokens), _checked(context_tokens)
    tile_q = 192 if head_dim == 64 else 128
    visible = [
        _visible(int(lengths[i]), int(queries[i]), tile, tile_q, 1)
        for i in np.argsort(-lengths, kind="stable")
        for tile in reversed(range(-(-int(queries[i]) // tile_q)))
    ]
    same_for_all_heads = len(visible) > 4096
    heap = [_Cluster(0.0, index) for index in range(sms)]
    tokens = [0] * sms
    tiles = [0] * sms
    for _ in range(1 if same_for_all_heads else heads):
        for chunk in visible:
            least = heapq.heappop(heap)
            tokens[least.index] += chunk
            tiles[least.index] += 1
            heapq.heappush(heap, _Cluster(least + 2 * tile_q + chunk, least.index))
    return PrefillPlan(tile_q, same_for_all_heads, sum(tiles), np.array(tokens, np.int64), np.array(tiles, np.int64))


class _Cluster(float):
    """A cluster's cost so far. Ordered by cost alone, so that ``heapq`` breaks ties as libstdc++'s heap does."""

    __slots__ = ("index",)
    index: int

    def __new__(cls, cost: float, index: int) -> _Cluster:
        cluster = super().__new__(cls, cost)
        cluster.index = index
        return cluster


def _visible(length: int, query: int, tile: int, tile_q: int, group_size: int) -> int:
    """KV tokens that a causal query tile sees: up to its last query token."""
    return min(length - query + -(-(tile + 1) * tile_q // group_size), length)


def _tile_rows(packed: int, head_dim: int) -> int:
    if packed > 64:
        return 64 if head_dim >= 256 else 128
    return 64 if packed > 16 else 16


def _tensor_core_chunk_pages(lengths: Sequence[int], page_tokens: int, slots: int) -> int:
    """Fewest pages of a chunk for which all chunks of the query tiles' contexts fit the slots, or the shortest chunk.

    The longest context's where nothing fits. The search is short, and in plain numbers, as what can be split has fewer
    tiles than slots: ``m`` pages do not fit below ``total / slots``, for a tile has at least ``pages / m`` chunks; and
    they do from ``(total - tiles) / (slots - tiles)`` on, for it has at most ``(pages - 1) / m + 1``.
    """
    least = max(_MIN_CHUNK_TOKENS // page_tokens, 1)
    longest = -(-max(lengths) // page_tokens)
    spare = slots - len(lengths)
    if spare <= 0:
        return max(least, longest)
    pages = [-(-length // page_tokens) for length in lengths]
    total = sum(pages)
    low = max(least, -(-total // slots))
    high = min(longest, -(-(total - len(pages)) // spare))
    return _smallest(lambda m: sum([-(-count // m) for count in pages]), low, high, slots)


def _smallest(cost: Callable[[int], int], low: int, high: int, cap: int) -> int:
    """The smallest m in [low, high] with cost(m) <= cap (cost falls with m); ``low`` where the range is empty."""
    while low < high:
        middle = (low + high) // 2
        if cost(middle) > cap:
            low = middle + 1
        else:
            high = middle
    return low


def _checked(lengths: Sequence[int] | IntArray) -> IntArray:
    array = np.asarray(lengths, np.int64)
    if not len(array):
        raise InputError("a batch to split has no requests, accepted is one length >= 1 per request")
    if int(array.min()) < 1:
        row = int(array.argmin())
        raise InputError(
            f"request {row} of a batch to split has {array[row]} tokens, accepted is one length >= 1 per request"
        )
    return array
