"""FA3: what a batch's shape does to its time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.batch import Batch
from l4sim.cost.attention import read_coefficients
from l4sim.cost.attention.fa3 import Tiles, fa3_attention, tiles
from l4sim.cost.attention.shape import Shape
from l4sim.cost.model import AttentionModel

Build = Callable[..., AttentionModel]
MakeBatch = Callable[..., Batch]


def test_one_short_decode_is_launch_start_and_one_block(attention: Build, batch: MakeBatch) -> None:
    # Launch 8, scan 0.02, merge kernel's visit 32 * 0.0003, start 2 and one block 1.3; memory adds next to nothing.
    seconds = attention("fa3").attention_s(batch([100]))
    assert seconds * 1e6 == pytest.approx(8 + 0.02 + 0.0096 + 2 + 1.3, abs=0.05)


def test_a_large_uniform_batch_is_bound_by_memory(attention: Build, batch: MakeBatch) -> None:
    # 4,294,967,296 bytes at 4.7 TB/s are 914 µs, of which the first 128 MB take 7.4 µs longer.
    seconds = attention("fa3").attention_s(batch([16384] * 64))
    assert 921e-6 < seconds < 1.08 * 921e-6


def test_one_request_is_faster_when_its_keys_are_split(attention: Build, batch: MakeBatch) -> None:
    # Unsplit, 512 blocks of 1.3 µs would take 666 µs on eight SMs.
    assert attention("fa3").attention_s(batch([65536])) < 120e-6


def test_skew_costs_little_because_each_request_is_split_by_itself(attention: Build, batch: MakeBatch) -> None:
    skewed, even = batch([1024] * 31 + [99328]), batch([4096] * 32)
    model = attention("fa3")
    assert 1.0 < model.attention_s(skewed) / model.attention_s(even) < 1.25


def test_decodes_that_stand_alone_are_split_but_beside_a_large_chunk_they_are_not(
    attention: Build, batch: MakeBatch
) -> None:
    model = attention("fa3")
    alone = model.attention_s(batch([131072]))
    mixed = model.attention_s(batch([131072], [(512, 0)]))
    # 1,024 blocks of 1.3 µs, one after the other.
    assert alone < 200e-6 < 1024 * 1.3e-6 < mixed


def test_a_mixed_batch_takes_longer_than_its_prefill_alone(attention: Build, batch: MakeBatch) -> None:
    model = attention("fa3")
    assert model.attention_s(batch([1000] * 32, [(2048, 0)])) > model.attention_s(batch([], [(2048, 0)]))


def test_tiles_of_a_causal_chunk_see_what_stands_before_them() -> None:
    # 96 tokens of groups of 4 are 384 rows: tiles end at tokens 32, 64, 96; with 100 cached: 132, 164, 196 tokens.
    assert tiles(96, 100, 4) == Tiles(number=3, most_rows=128, most_kv_blocks=2, kv_blocks=6)
    assert tiles(40, 0, 4) == Tiles(number=2, most_rows=128, most_kv_blocks=1, kv_blocks=2)
    assert tiles(512, 0, 1) == Tiles(number=4, most_rows=128, most_kv_blocks=4, kv_blocks=1 + 2 + 3 + 4)
    assert tiles(3, 500, 8) == Tiles(number=1, most_rows=24, most_kv_blocks=4, kv_blocks=4)


@pytest.mark.slow
@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(1, 12))
def test_the_sum_over_tiles_is_exact(chunk: int, cached: int, group: int) -> None:
    ends = [min(-(-end // group), chunk) for end in range(128, chunk * group + 128, 128)]
    assert tiles(chunk, cached, group).kv_blocks == sum(-(-(cached + end) // 128) for end in ends)


def test_order_matters_only_where_blocks_wait(attention: Build, batch: MakeBatch) -> None:
    model = attention("fa3")
    few = [model.attention_s(batch(list(order))) for order in itertools.permutations([300, 600, 1200])]
    assert max(few) == pytest.approx(min(few))
    contexts = [500] * 63
    first, last = model.attention_s(batch([12000, *contexts])), model.attention_s(batch([*contexts, 12000]))
    assert first < last


def test_head_dim_scales_bytes_and_blocks(attention: Build, batch: MakeBatch) -> None:
    made = batch([16384] * 64)
    ratio = attention("fa3", head_dim=256).attention_s(made) / attention("fa3").attention_s(made)
    assert ratio == pytest.approx(2.0, rel=0.05)


def test_above_992_requests_nothing_is_split_or_merged(attention: Build, batch: MakeBatch) -> None:
    model = attention("fa3", heads=4, kv_heads=1)
    at, above = (model.attention_s(batch([100] * count)) for count in (992, 993))
    # The scan falls from 20 to 7 ns per request, and the merge kernel is gone; one more block is no new wave.
    assert (at - above) * 1e6 == pytest.approx(992 * 0.020 + 992 * 4 * 0.0003 - 993 * 0.007, abs=0.1)


def test_growing_contexts_are_near_affine_between_two_iterations(attention: Build, batch: MakeBatch) -> None:
    model = attention("fa3")
    rng = np.random.default_rng(3)
    contexts = rng.integers(500, 9000, 48)
    first, middle, last = (model.attention_s(batch((contexts + step).tolist())) for step in (0, 32, 64))
    assert middle == pytest.approx((first + last) / 2, rel=0.02)


def test_a_warm_l2_is_faster_where_the_keys_fit(coefficients: Any, batch: MakeBatch) -> None:
    small, large = batch([4000]), batch([4000] * 64)
    c = read_coefficients("fa3", coefficients("fa3"))
    cold, warm = (fa3_attention(Shape(32, 8, 128, 132), c, warm_l2=warm) for warm in (False, True))
    assert warm.attention_s(small) < cold.attention_s(small)
    assert warm.attention_s(large) == cold.attention_s(large)
