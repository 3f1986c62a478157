"""The roofline of attention: bytes for decode, arithmetic for prefill, sums of lengths alone."""

from collections.abc import Callable

import pytest

from l4sim.cost.batch import Batch
from l4sim.cost.roofline import RooflineAttention
from l4sim.specs.gpu import GPUS

IDEAL = RooflineAttention(
    GPUS["h200-sxm"],
    heads=32,
    kv_heads=8,
    head_dim=128,
    bandwidth_fraction=1.0,
    tensor_core_fraction=1.0,
    launch_s=0.0,
)


def test_decode_reads_keys_and_values_once(batch: Callable[..., Batch]) -> None:
    # 4,096 bytes per token and layer; 131,072 tokens are 537 MB: 111.8 us.
    assert IDEAL.attention_s(batch([2048] * 64)) == pytest.approx(131_072 * 4096 / 4.8e12)


def test_only_the_sum_of_lengths_counts(batch: Callable[..., Batch]) -> None:
    assert IDEAL.attention_s(batch([1, 8191])) == IDEAL.attention_s(batch([4096, 4096]))


def test_prefill_computes_its_causal_pairs(batch: Callable[..., Batch]) -> None:
    # 8,192 tokens on 1,000 cached: 4 x 32 x 128 operations per pair.
    pairs = 8192 * 1000 + 8192 * 8193 / 2
    assert IDEAL.attention_s(batch(prefills=[(8192, 1000)])) == pytest.approx(16_384 * pairs / 989e12)


def test_a_mixed_batch_takes_the_sum(batch: Callable[..., Batch]) -> None:
    parts = IDEAL.attention_s(batch([4096])) + IDEAL.attention_s(batch(prefills=[(512, 0)]))
    assert IDEAL.attention_s(batch([4096], [(512, 0)])) == pytest.approx(parts)
