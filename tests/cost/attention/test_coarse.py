"""Models that do not see single lengths."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4sim.batch import Batch
from l4sim.cost.model import AttentionModel

Build = Callable[..., AttentionModel]
MakeBatch = Callable[..., Batch]

SKEWED, EVEN = [1000] * 15 + [65000], [5000] * 16


def test_mean_sees_no_skew_and_tile_on_fa3_a_little(attention: Build, batch: MakeBatch) -> None:
    mean, tile = attention("fa3", model="mean"), attention("fa3")
    assert mean.attention_s(batch(SKEWED)) == mean.attention_s(batch(EVEN)) == tile.attention_s(batch(EVEN))
    assert 1.0 < tile.attention_s(batch(SKEWED)) / tile.attention_s(batch(EVEN)) < 1.2


def test_mean_rounds_up_to_whole_tokens(attention: Build, batch: MakeBatch) -> None:
    made = batch([1, 2])
    assert attention("fa3", model="mean").attention_s(made) == attention("fa3").attention_s(batch([2, 2]))


def test_skew_lies_between_mean_and_longest(attention: Build, batch: MakeBatch) -> None:
    tile = attention("fa3")
    mean_s, longest_s = tile.attention_s(batch(EVEN)), tile.attention_s(batch([65000] * 16))
    expected = mean_s + 0.25 * (longest_s - mean_s)
    assert attention("fa3", model="skew").attention_s(batch(SKEWED)) == pytest.approx(expected)


def test_sum_is_affine_in_tokens_and_blind_to_their_spread(attention: Build, batch: MakeBatch) -> None:
    model = attention("fa3", model="sum")
    assert model.attention_s(batch(SKEWED)) == model.attention_s(batch(EVEN)) == model.attention_s(batch([80000]))
    zero, one, two = (model.attention_s(batch([tokens])) for tokens in (1, 10001, 20001))
    assert one - zero == pytest.approx(two - one)


def test_sum_meets_tile_where_it_is_calibrated(attention: Build, batch: MakeBatch) -> None:
    long = batch([16384] * 64)
    assert attention("fa3", model="sum").attention_s(long) == pytest.approx(attention("fa3").attention_s(long))
