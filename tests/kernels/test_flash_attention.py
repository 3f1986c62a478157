"""FlashAttention's splits, on cases worked by hand for 132 SMs."""

from __future__ import annotations

import pytest

from l4sim.kernels.flash_attention import fa2_splits, fa3_bound, fa3_splits

SMS = 132


def test_fa2_splits_one_request_into_its_blocks() -> None:
    # 32 blocks, 8 tiles on 264 slots: w = s/33, so more is better up to 32 blocks, and 16 (0.48) is under 0.85 * 0.97.
    assert fa2_splits(4096, batch=1, kv_heads=8, sms=SMS, rows=4) == 32


def test_fa2_skips_splits_that_leave_the_blocks_per_split_unchanged() -> None:
    # 128 blocks: s = 28 (w 0.848) would suffice, but ceil(128/28) = ceil(128/27) = 5; the next eligible is 32.
    assert fa2_splits(16384, batch=1, kv_heads=8, sms=SMS, rows=4) == 32


@pytest.mark.parametrize(("batch", "splits"), [(26, 5), (27, 1)])
def test_fa2_stops_splitting_at_four_fifths_of_the_slots(batch: int, splits: int) -> None:
    # 27 * 8 = 216 >= 0.8 * 264 = 211.2. At 208 tiles: s = 1, 2, 3, 4 fill 0.788 of their waves, s = 5 0.985.
    assert fa2_splits(16384, batch=batch, kv_heads=8, sms=SMS, rows=4) == splits


def test_fa2_counts_query_tiles_of_64_rows() -> None:
    assert fa2_splits(16384, batch=14, kv_heads=8, sms=SMS, rows=64) != 1
    assert fa2_splits(16384, batch=14, kv_heads=8, sms=SMS, rows=65) == 1


def test_fa3_splits_one_request_over_the_sms() -> None:
    # 32 blocks; bound: 14 (112/132 = 0.848 >= 0.85 * 128/132). Blocks per SM: ceil(1.1 * 8 * 32 / 132 = 2.13) = 3.
    split = fa3_splits([4096], kv_heads=8, sms=SMS)
    assert fa3_bound(4096, kv_heads=8, sms=SMS) == 14
    assert (split.blocks, split.splits, split.split_blocks) == ([32], [11], [3])


def test_fa3_splits_only_the_long_request_of_a_skewed_batch() -> None:
    # 776 + 31 * 8 = 1,024 blocks; per SM: ceil(68.3) = 69; the long one: ceil(776 / 69) = 12 splits of 65 blocks.
    split = fa3_splits([*[1024] * 31, 99328], kv_heads=8, sms=SMS)
    assert split.splits == [1] * 31 + [12]
    assert split.split_blocks == [8] * 31 + [65]


def test_fa3_bound_comes_from_the_longest_request_as_if_alone() -> None:
    # From 33 blocks on, 33 splits fill two waves: 0.85 * 1 needs 15 (0.909), where 14 gives 0.848.
    assert fa3_bound(33 * 128, kv_heads=8, sms=SMS) == 15
    assert fa3_bound(32 * 128, kv_heads=8, sms=SMS) == 14


def test_fa3_splits_without_a_mask_where_tiles_abound_and_a_head_overflows_the_l2() -> None:
    # K and V of a head take 512 bytes a token: 102,400 tokens are just 50 MiB.
    assert fa3_bound(102_401, kv_heads=1, sms=SMS, tiles=264, causal=False) == 2
    assert fa3_bound(102_400, kv_heads=1, sms=SMS, tiles=264, causal=False) == 1
    assert fa3_bound(102_401, kv_heads=1, sms=SMS, tiles=264) == 1


def test_fa3_never_splits_four_blocks() -> None:
    assert fa3_bound(4 * 128, kv_heads=1, sms=SMS) == 1
    assert fa3_bound(4 * 128 + 1, kv_heads=1, sms=SMS) == 5


def test_fa3_does_not_split_decodes_beside_a_prefill_that_fills_the_gpu() -> None:
    # 512 query tokens of groups of 4 are 16 tiles; 16 * 8 = 128 >= 105.6. With 256 tokens it is 64.
    contexts = [65536, 2048]
    wide = fa3_splits(contexts, kv_heads=8, sms=SMS, query_rows=[4, 512 * 4])
    narrow = fa3_splits(contexts, kv_heads=8, sms=SMS, query_rows=[4, 256 * 4])
    assert wide.splits == [1, 1]
    # 512 + 8 * 16 = 640 blocks; per SM: ceil(42.7) = 43; bound: 64 tiles fill 0.97 in one wave with two splits.
    assert narrow.splits == [2, 1]


def test_fa3_splits_a_head_that_exceeds_l2_when_not_causal() -> None:
    # 131,072 tokens are 64 MiB of one KV head: two parts of at most 50 MiB.
    shape = {"kv_heads": 8, "sms": SMS, "tiles": 264}
    assert fa3_bound(131072, causal=False, **shape) == 2
    assert fa3_bound(131072, causal=True, **shape) == 1


def test_fa3_splits_nothing_above_992_requests() -> None:
    contexts = [262144] + [128] * 992
    assert fa3_splits(contexts[:992], kv_heads=1, sms=SMS).splits[0] > 1
    assert max(fa3_splits(contexts, kv_heads=1, sms=SMS).splits) == 1


def test_fa3_takes_vllms_bound_under_cuda_graphs() -> None:
    assert fa3_splits([262144], kv_heads=1, sms=SMS, bound=32).splits == [32]
    # Alone: 2,048 blocks, ceil(17.07) = 18 per SM: 114 splits, but 109 fill 0.826 of the SMs (0.85 * 128/132 = 0.824).
    assert fa3_splits([262144], kv_heads=1, sms=SMS).splits == [109]
