"""Attention held to uniform batches: these take what was measured, and unequal ones differ as the kernel splits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from l4sim.batch import Batch
from l4sim.cost.attention.anchored import AnchoredAttention, ratios, uniform_decodes, uniform_prompts
from l4sim.cost.model import AttentionModel

REQUESTS, LENGTHS = np.array([1, 8, 64]), np.array([128, 1024, 8192])
MakeBatch = Callable[..., Batch]


@pytest.fixture(scope="module")
def tile(attention: Callable[..., AttentionModel]) -> AttentionModel:
    return attention("fa3")


def modelled(tile: AttentionModel, uniform: Callable[[int, int], Batch]) -> np.ndarray:
    return np.array([[tile.attention_s(uniform(int(n), int(tokens))) for tokens in LENGTHS] for n in REQUESTS])


@pytest.fixture(scope="module")
def anchored(tile: AttentionModel) -> AnchoredAttention:
    """Decodes are measured to take twice what the kernel's model says, prompts half."""
    decodes, prompts = modelled(tile, uniform_decodes), modelled(tile, uniform_prompts)
    return AnchoredAttention(
        tile,
        ratios(REQUESTS, LENGTHS, 2 * decodes, decodes),
        ratios(REQUESTS, LENGTHS, prompts / 2, prompts),
    )


def test_uniform_batches_take_what_was_measured(tile: AttentionModel, anchored: AnchoredAttention) -> None:
    for batch, factor in ((uniform_decodes(8, 1024), 2), (uniform_prompts(8, 1024), 0.5), (uniform_decodes(3, 500), 2)):
        assert anchored.attention_s(batch) == pytest.approx(factor * tile.attention_s(batch))


def test_unequal_lengths_cost_as_much_more_as_in_the_kernels_own_split(
    tile: AttentionModel, anchored: AnchoredAttention, batch: MakeBatch
) -> None:
    uneven, even = batch([64] * 31 + [30784]), uniform_decodes(32, 1024)
    penalty = tile.attention_s(uneven) / tile.attention_s(even)
    assert penalty > 1.05
    assert anchored.attention_s(uneven) / anchored.attention_s(even) == pytest.approx(penalty)


def test_a_mixed_batch_lies_between_what_its_parts_take_more_or_less(
    tile: AttentionModel, anchored: AnchoredAttention, batch: MakeBatch
) -> None:
    mixed = batch([4096] * 32, [(512, 0)])
    assert 0.5 < anchored.attention_s(mixed) / tile.attention_s(mixed) < 2
    assert anchored.attention_s(batch()) == 0


def test_what_was_not_measured_is_as_the_nearest_that_was(tile: AttentionModel) -> None:
    measured = modelled(tile, uniform_decodes)
    measured[2, 2] = np.nan
    found = ratios(REQUESTS, LENGTHS, measured * np.array([1.0, 2.0, 3.0]), modelled(tile, uniform_decodes))
    # Eight requests of that length are as near as as many of an eighth of it.
    assert found.at(64, 8192) == pytest.approx(3)
    assert found.at(4096, 128) == pytest.approx(1)
    assert found.at(8, (1024 * 8192) ** 0.5) == pytest.approx(6**0.5)
