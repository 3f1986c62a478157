"""FA2: one split for all, and mixed batches as one unsplit kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from l4sim.batch import Batch
from l4sim.cost.attention.fa2 import FA2Coefficients, fa2_attention
from l4sim.cost.attention.shape import Shape
from l4sim.cost.model import AttentionModel

Build = Callable[..., AttentionModel]
MakeBatch = Callable[..., Batch]


def test_a_mixed_batch_takes_longer_than_the_sum_of_its_parts(attention: Build, batch: MakeBatch) -> None:
    model = attention("fa2")
    parts = model.attention_s(batch([512] * 64)) + model.attention_s(batch([], [(2048, 0)]))
    assert 1.2 < model.attention_s(batch([512] * 64, [(2048, 0)])) / parts < 1.8


def test_a_decode_beside_a_chunk_streams_its_whole_context_in_one_block(attention: Build, batch: MakeBatch) -> None:
    # 128 blocks of 2.7 µs, a start of 2.4 and a launch of 2 µs: the chunk's few tiles fit beside it.
    seconds = attention("fa2").attention_s(batch([16384], [(64, 0)]))
    assert seconds * 1e6 == pytest.approx(128 * 2.7 + 2.4 + 2, rel=0.01)


def test_a_chunk_of_more_tiles_than_slots_takes_two_waves(attention: Build, batch: MakeBatch) -> None:
    # 32 heads: 5 tiles of 64 rows are 160 blocks on 188 SMs, 6 are 192. Each visits 129 blocks, the last one 131.
    model = attention("fa2")
    one, two = (model.attention_s(batch([], [(chunk, 16384)])) for chunk in (320, 384))
    assert one * 1e6 == pytest.approx(2 + 4 + 2.7 * 131, rel=0.02)
    assert two == pytest.approx(2 * one, rel=0.02)


def test_empty_tiles_of_short_requests_cost_time(attention: Build, batch: MakeBatch) -> None:
    # 128 decodes of 32 heads beside 32 tiles instead of 4: 28 more empty blocks each, 0.4 µs apart on 188 SMs.
    model = attention("fa2")
    beside, alone = ([model.attention_s(batch(c, [(q, 0)])) for q in (256, 2048)] for c in ([16] * 128, []))
    extra_s = (beside[1] - alone[1]) - (beside[0] - alone[0])
    assert extra_s * 1e6 == pytest.approx(128 * 32 * 28 * 0.4 / 188, rel=0.1)


def test_nothing_is_split_from_38_requests_of_8_heads_on_188_sms(attention: Build, batch: MakeBatch) -> None:
    # 0.8 * 2 * 188 = 300.8 tiles: 37 requests are 296, 38 are 304. Unsplit, the long one needs 256 blocks of 2.2 µs.
    model = attention("fa2")
    split, unsplit = (model.attention_s(batch([256] * others + [32768])) for others in (36, 37))
    assert split < 256 * 2.2e-6 < unsplit


def test_heads_go_over_the_batch_one_after_the_other(attention: Build, batch: MakeBatch) -> None:
    # 512 decodes of 2 blocks and a tile of 129: (512 * 7.8 + 352.3) / 188 = 23.1 µs for each of 32 heads. The last
    # head's tile starts when all decodes are done.
    seconds = attention("fa2").attention_s(batch([256] * 512, [(64, 16384)]))
    assert seconds * 1e6 == pytest.approx(2 + 32 * 23.1 + 352.3, rel=0.03)


def test_prefills_at_the_front_of_each_head_start_before_its_decodes(
    coefficients: Callable[[str], dict[str, Any]], batch: MakeBatch
) -> None:
    values = coefficients("fa2")
    del values["skew_alpha"]
    shape, c = Shape(32, 8, 128, 188), FA2Coefficients(**values)
    made = batch([256] * 512, [(64, 16384)])
    last, first = (fa2_attention(shape, c, prefills_first=front).attention_s(made) for front in (False, True))
    # One head's decodes take 512 * 7.8 µs on 188 SMs, give or take one.
    assert (last - first) * 1e6 == pytest.approx(512 * 7.8 / 188, abs=7.8)


def test_a_captured_decode_batch_is_split_as_the_batch_it_was_captured_for(
    coefficients: Callable[[str], dict[str, Any]], batch: MakeBatch
) -> None:
    """33 requests run in the graph of 40, which splits nothing; 41 are in none, and those of 24 split as 24 do."""
    values = coefficients("fa2")
    del values["skew_alpha"]
    c = FA2Coefficients(**values)
    launched, captured = (
        fa2_attention(Shape(32, 8, 128, 188, *graphs), c) for graphs in ((), ((1, 2, 4, 8, 16, 24, 40), 131_072))
    )
    one_long = {count: batch([256] * (count - 1) + [32768]) for count in (24, 33, 41)}
    assert launched.attention_s(one_long[33]) < 256 * 2.2e-6 < captured.attention_s(one_long[33])
    for count in (24, 41):
        assert captured.attention_s(one_long[count]) == launched.attention_s(one_long[count])
