"""FlashInfer's planners beyond the golden answers: prefill, query tiles, graphs, and the jumps between regimes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.errors import InputError
from l4sim.kernels.flashinfer import (
    CUDA_CORE_BLOCKS_PER_SM,
    cuda_core_tile_tokens,
    kv_tile_tokens,
    plan_batch_attention,
    plan_cuda_core,
    plan_fa3_prefill,
    plan_tensor_core,
    query_tile_ends,
    tensor_core_blocks,
    tensor_core_decode_chunk_tokens,
)

SHAPE = {"kv_heads": 8, "page_tokens": 16, "sms": 132}
TENSOR = {**SHAPE, "group_size": 4, "head_dim": 128}
BALANCED = {"kv_heads": 8, "group_size": 4, "head_dim": 128, "sms": 132}

# FlashInfer's longest chunk for 131,072 tokens in all: batch -> (CUDA cores, tensor cores, BatchAttention's busiest).
BATCHES = [
    ([2048] * 64, 1024, 2048, 4096),
    ([512] * 62 + [49664] * 2, 1424, 49664, 5120),
    ([1024] * 31 + [99328], 1024, 49664, 5120),
    ([256] * 255 + [65792], None, 65792, 6144),
]


@pytest.mark.parametrize(("contexts", "cuda_core", "tensor_core", "busiest"), BATCHES)
def test_longest_chunks_of_131072_tokens(
    contexts: list[int], cuda_core: int | None, tensor_core: int, busiest: int
) -> None:
    assert plan_cuda_core(contexts, blocks_per_sm=8, **SHAPE).chunk_tokens == cuda_core
    assert plan_tensor_core(contexts, **TENSOR).chunk_tokens == tensor_core
    balanced = plan_batch_attention(contexts, **BALANCED)
    assert balanced.busiest_tokens == busiest
    assert balanced.mean_tokens == pytest.approx(131072 * 8 / 264)


def test_tensor_cores_stop_splitting_at_33_requests() -> None:
    # 2 * 132 // 8 = 33 slots: with 32 requests one is left for the long one to take a second chunk.
    assert plan_tensor_core([1024] * 31 + [99328], **TENSOR).chunk_tokens == 99328 // 2
    unsplit = plan_tensor_core([1024] * 32 + [99328], **TENSOR)
    assert (unsplit.split, unsplit.chunk_tokens) == (False, 99328)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 300)), min_size=1, max_size=40),
    st.sampled_from([1, 8, 16, 400]),
    st.sampled_from([1, 16, 256]),
)
def test_tensor_cores_chunk_is_the_shortest_that_fits(
    requests: list[tuple[int, int]], kv_heads: int, page_tokens: int
) -> None:
    contexts = [cached + query for cached, query in requests]
    shape = {**TENSOR, "kv_heads": kv_heads, "page_tokens": page_tokens}
    plan = plan_tensor_core(contexts, [query for _, query in requests], **shape)
    pages = [-(-length // page_tokens) for length in contexts]
    tiles = [-(-query * 4 // plan.tile_q) for _, query in requests]

    def chunks(chunk_pages: int) -> int:
        return sum(count * -(-length // chunk_pages) for count, length in zip(tiles, pages, strict=True))

    shortest = max(128 // page_tokens, 1)
    fitting = (size for size in range(shortest, max(pages)) if chunks(size) <= 2 * 132 // kv_heads)
    chunk_pages = next(fitting, max(shortest, *pages))
    assert (plan.chunk_tokens, plan.chunks) == (chunk_pages * page_tokens, chunks(chunk_pages))


@pytest.mark.slow
@given(
    st.lists(st.integers(1, 20000), min_size=1, max_size=40),
    st.sampled_from([(8, 4, 128), (1, 8, 128), (3, 80, 256)]),
)
def test_a_decode_is_chunked_as_its_plan_is(contexts: list[int], heads: tuple[int, int, int]) -> None:
    kv_heads, group_size, head_dim = heads
    shape = {"kv_heads": kv_heads, "group_size": group_size, "head_dim": head_dim, "page_tokens": 16, "sms": 132}
    for cuda_graph in (False, True):
        plan = plan_tensor_core(contexts, cuda_graph=cuda_graph, **shape)
        assert tensor_core_decode_chunk_tokens(contexts, **shape) == plan.chunk_tokens


def test_cuda_cores_stop_splitting_at_132_requests() -> None:
    # Occupancy 8 on 132 SMs: 1,056 blocks, which 132 requests of 8 KV heads fill.
    assert plan_cuda_core([1024] * 130 + [99328], blocks_per_sm=8, **SHAPE).split
    full = plan_cuda_core([1024] * 131 + [99328], blocks_per_sm=8, **SHAPE)
    assert (full.split, full.chunk_tokens, full.chunks) == (False, None, 132)


def test_query_tiles_grow_with_the_mean_rows() -> None:
    # Rows: 4 * (1 + 7) / 2 = 16 -> 16; 4 * (1 + 8) / 2 = 18 -> 64; 4 * (1 + 40) / 2 = 82 -> 128 (64 at head_dim 256).
    tiles = [plan_tensor_core([512, 512], [1, query], **TENSOR).tile_q for query in (7, 8, 40)]
    assert tiles == [16, 64, 128]
    assert plan_tensor_core([512, 512], [1, 40], **{**TENSOR, "head_dim": 256}).tile_q == 64


def test_under_cuda_graphs_every_batch_counts_as_split() -> None:
    assert not plan_tensor_core([1024] * 64, **TENSOR).split
    assert plan_tensor_core([1024] * 64, cuda_graph=True, **TENSOR).split
    assert not plan_cuda_core([128] * 8, blocks_per_sm=8, **SHAPE).split
    assert plan_cuda_core([128] * 8, blocks_per_sm=8, cuda_graph=True, **SHAPE).split
    # Rows 1 + 40: the graph's tile is for (41 - 2 + 1) * 4 = 160 rows, the batch's own for a mean of 82.
    assert plan_tensor_core([512, 512], [1, 8], cuda_graph=True, **TENSOR).tile_q == 64


@pytest.mark.parametrize(("group", "tokens"), [(1, 32), (2, 8), (3, 6), (4, 8), (8, 8)])
def test_cuda_cores_work_on_few_tokens_at_once(group: int, tokens: int) -> None:
    # 16 threads per row of 128 elements; 128 threads hold 8 rows, in whole groups: two groups of 3, 6 rows.
    assert cuda_core_tile_tokens(group, 128) == tokens


@pytest.mark.parametrize(("group", "blocks"), [(1, 6), (2, 9), (4, 8), (8, 9)])
def test_blocks_of_cuda_core_decode_that_an_sm_of_an_h200_holds(group: int, blocks: int) -> None:
    # As the kernel's own plan told on an H200.
    assert CUDA_CORE_BLOCKS_PER_SM[group] == blocks


@pytest.mark.parametrize(("tile_q", "tokens"), [(16, 128), (64, 128), (128, 64)])
def test_two_blocks_of_the_largest_query_tile_leave_room_for_half_the_keys(tile_q: int, tokens: int) -> None:
    assert kv_tile_tokens(tile_q) == tokens


def test_a_query_tile_sees_up_to_its_last_query() -> None:
    # 40 queries of groups of 4 after 60 cached tokens: 160 rows, of which the first tile's last is query 32.
    assert query_tile_ends(100, 40, 128, 4).tolist() == [92, 100]
    # Groups of 3 do not fill a tile evenly: row 127 belongs to query 42, the 43rd.
    assert query_tile_ends(100, 100, 128, 3).tolist() == [43, 86, 100]


def test_chunks_beyond_the_causal_mask_keep_their_blocks() -> None:
    # 8 tiles of 32 queries and 2 chunks of 128 tokens: a tile of the first half sees nothing of the second chunk.
    plan = plan_tensor_core([256], [256], **TENSOR)
    assert (plan.split, plan.chunk_tokens, plan.chunks) == (True, 128, 16)
    blocks = tensor_core_blocks(plan, [256], [256], 4)
    assert blocks.tolist() == [32, 0, 64, 0, 96, 0, 128, 0, 128, 32, 128, 64, 128, 96, 128, 128]


def test_blocks_without_a_split_are_query_tiles_by_request() -> None:
    plan = plan_tensor_core([512, 40], [512, 40], **{**TENSOR, "kv_heads": 32})
    assert (plan.split, plan.tile_q) == (False, 128)
    assert tensor_core_blocks(plan, [512, 40], [512, 40], 4).tolist() == [*range(32, 513, 32), 32, 40]


def test_batch_attention_tiles_a_prefill_by_128_rows() -> None:
    # 64 query tokens of groups of 4 are 256 rows: two tiles that see 64 and 32 tokens, for each of two KV heads.
    plan = plan_batch_attention([64], [64], kv_heads=2, group_size=4, head_dim=128, sms=132)
    assert plan.work_items == 4
    assert plan.cluster_tokens.sum() == 2 * (64 + 32)
    assert plan.busiest_tokens == 64


def test_batch_attention_has_half_the_clusters_at_head_dim_256() -> None:
    plan = plan_batch_attention([4096], kv_heads=8, group_size=4, head_dim=256, sms=132)
    assert len(plan.cluster_tokens) == 132


def test_fa3_prefill_balances_query_tiles() -> None:
    # Tiles of one head, last first: 256 tokens visible (cost 512) and 128 (cost 384), one per SM.
    one = plan_fa3_prefill([256], [256], heads=1, head_dim=128, sms=2)
    assert one.sm_tokens.tolist() == [256, 128]
    # The second head's long tile goes to the less loaded SM 1 (384), its short one to SM 0 (512).
    two = plan_fa3_prefill([256], [256], heads=2, head_dim=128, sms=2)
    assert two.sm_tokens.tolist() == [384, 384]
    assert two.sm_tiles.tolist() == [2, 2]


def test_fa3_prefill_takes_the_longest_context_first() -> None:
    plan = plan_fa3_prefill([128, 128], [128, 1024], heads=1, head_dim=128, sms=2)
    assert plan.sm_tokens.tolist() == [1024, 128]


def test_fa3_prefill_uses_tiles_of_192_at_head_dim_64() -> None:
    plan = plan_fa3_prefill([384], [384], heads=1, head_dim=64, sms=2)
    assert (plan.tile_q, plan.tiles) == (192, 2)


def test_fa3_prefill_repeats_one_schedule_above_4096_tiles() -> None:
    long = plan_fa3_prefill([4097 * 128], [4097 * 128], heads=4, head_dim=128, sms=132)
    assert (long.same_for_all_heads, long.tiles) == (True, 4097)
    short = plan_fa3_prefill([4096 * 128], [4096 * 128], heads=2, head_dim=128, sms=132)
    assert (short.same_for_all_heads, short.tiles) == (False, 2 * 4096)


@pytest.mark.parametrize(("contexts", "what"), [([], "has no requests"), ([128, 0], "request 1 .* has 0 tokens")])
def test_empty_batches_and_lengths_are_refused(contexts: list[int], what: str) -> None:
    with pytest.raises(InputError, match=f"{what}.* one length >= 1 per request"):
        plan_cuda_core(contexts, blocks_per_sm=8, **SHAPE)
    with pytest.raises(InputError, match=f"{what}.* one length >= 1 per request"):
        plan_tensor_core(contexts, **TENSOR)
    with pytest.raises(InputError, match=f"{what}.* one length >= 1 per request"):
        plan_batch_attention(contexts, **BALANCED)
