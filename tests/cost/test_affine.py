"""The affine model: exact by hand, linear over a segment, and recovered by its own fit."""

from collections.abc import Callable

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.affine import AffineCost, fit_affine

COST = AffineCost(
    base_s=4e-3,
    per_sequence_s=1e-5,
    per_prefill_token_s=2e-5,
    per_context_token_s=3e-8,
    per_prefill_pair_s=1e-9,
)


def test_an_iteration_by_hand(batch: Callable[..., Batch]) -> None:
    # 3 sequences, 600 context tokens; 100 prompt tokens on 50: 100 x 50 + 100 x 101 / 2 pairs.
    seconds = 4e-3 + 3 * 1e-5 + 600 * 3e-8 + 100 * 2e-5 + (5000 + 5050) * 1e-9
    assert COST.iteration_s(batch([100, 200, 300], [(100, 50)])) == pytest.approx(seconds)


def test_a_segment_lies_on_a_line(batch: Callable[..., Batch]) -> None:
    first_s, last_s = COST.decode_segment_s(batch([100, 200]), 11)
    assert first_s == COST.iteration_s(batch([100, 200]))
    assert last_s == COST.iteration_s(batch([110, 210]))
    assert COST.iteration_s(batch([105, 205])) == pytest.approx((first_s + last_s) / 2)


def test_lengths_count_by_their_sum_alone(batch: Callable[..., Batch]) -> None:
    assert COST.iteration_s(batch([1, 399])) == COST.iteration_s(batch([200, 200]))


def test_its_own_fit_finds_it_again() -> None:
    found = fit_affine(COST, max_sequences=256, max_tokens=8192, max_context_tokens=131_072)
    for field in AffineCost.__slots__:
        assert getattr(found, field) == pytest.approx(getattr(COST, field), rel=1e-6)


@pytest.mark.parametrize("max_tokens", [1, 20])
def test_an_engine_of_small_batches_and_short_contexts_has_a_fit_too(max_tokens: int) -> None:
    found = fit_affine(COST, max_sequences=4, max_tokens=max_tokens, max_context_tokens=40)
    for sequences, context_tokens in ((1, 40), (4, 40)):
        decoding = Batch(np.full(sequences, context_tokens), sequences * context_tokens)
        assert found.iteration_s(decoding) == pytest.approx(COST.iteration_s(decoding), rel=1e-3)
    prompt = Batch(np.empty(0, dtype=np.int64), 0, (Prefill(max_tokens, 0),))
    assert found.iteration_s(prompt) == pytest.approx(COST.iteration_s(prompt), rel=1e-3)
