"""PyTorch's attention on a CPU: a sum over requests, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.torch_cpu import TorchCpuAttention, TorchCpuCoefficients

MODEL = TorchCpuAttention(
    Shape(heads=4, kv_heads=2, head_dim=64, sms=1), TorchCpuCoefficients(1.0, 10.0, 0.5, 8.0, 0.25)
)


def test_decodes_cost_their_calls_and_their_keys_and_values() -> None:
    # 3 requests; 60 tokens of 2 x 2 x 64 elements.
    assert MODEL.attention_s(Batch(np.array([10, 20, 30]), 60)) == pytest.approx(1 + 3 * 10 + 60 * 256 * 0.5)


def test_what_they_displace_is_no_more_than_the_cache_holds() -> None:
    model = replace(MODEL, c=replace(MODEL.c, displaced_element_s=2.0))
    few, many = Batch(np.array([10, 20, 30]), 60), Batch(np.array([900, 900]), 1800)
    assert model.attention_s(few) - MODEL.attention_s(few) == pytest.approx(60 * 256 * 2.0)
    assert model.attention_s(many) - MODEL.attention_s(many) == pytest.approx(1024 * 256 * 2.0)


def test_how_the_tokens_are_spread_does_not_matter_while_each_context_fits_the_cache() -> None:
    assert MODEL.attention_s(Batch(np.array([58, 1, 1]), 60)) == MODEL.attention_s(Batch(np.array([20, 20, 20]), 60))


def test_what_one_context_exceeds_the_cache_by_costs_more() -> None:
    # 2^18 elements are 1,024 tokens: 76 of the 1,100 spill.
    seconds = MODEL.attention_s(Batch(np.array([1100, 24]), 1124))
    assert seconds == pytest.approx(1 + 2 * 10 + 1124 * 256 * 0.5 + 76 * 256 * 8.0)


def test_a_prompt_pays_for_masked_pairs_too() -> None:
    # 8 new tokens on 12 cached: keys and values of 20, and 8 x 20 pairs of 4 heads of 64 elements.
    seconds = MODEL.attention_s(Batch(np.empty(0, np.int64), 0, (Prefill(8, 12),)))
    assert seconds == pytest.approx(1 + 10 + 20 * 256 * 0.5 + 160 * 256 * 0.25)
    long_s = MODEL.attention_s(Batch(np.empty(0, np.int64), 0, (Prefill(8, 1020),)))
    assert long_s == pytest.approx(1 + 10 + 1028 * 256 * 0.5 + 4 * 256 * 8.0 + 8 * 1028 * 256 * 0.25)
