"""What every kernel's model has in common, and what a wrong coefficient says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from l4sim.batch import Batch
from l4sim.cost.attention import KERNELS, MODELS, build_attention
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError

Build = Callable[..., AttentionModel]
MakeBatch = Callable[..., Batch]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("model", MODELS)
def test_an_empty_batch_takes_no_time(kernel: str, model: str, attention: Build, batch: MakeBatch) -> None:
    assert attention(kernel, model=model).attention_s(batch()) == 0.0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("model", MODELS)
def test_a_prefill_without_decodes_is_the_same_in_every_model(
    kernel: str, model: str, attention: Build, batch: MakeBatch
) -> None:
    prefill = batch([], [(2048, 4096)])
    assert attention(kernel, model=model).attention_s(prefill) == attention(kernel).attention_s(prefill) > 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_decode_beats_the_roofline(kernel: str, attention: Build, batch: MakeBatch) -> None:
    bandwidth = 1.597e12 if kernel == "fa2" else 4.8e12
    model = attention(kernel)
    rng = np.random.default_rng(1)
    for count in (1, 7, 32, 64, 200):
        contexts = (rng.lognormal(7.5, 1.2, count).astype(int) + 1).tolist()
        assert model.attention_s(batch(contexts)) > sum(contexts) * 8 * 128 * 4 / bandwidth


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_prefill_beats_the_roofline(kernel: str, attention: Build, batch: MakeBatch) -> None:
    flops = 503.8e12 if kernel == "fa2" else 989e12
    model = attention(kernel)
    for chunk, cached in ((512, 0), (2048, 0), (2048, 65536), (8192, 131072)):
        pairs = chunk * (cached + (chunk + 1) / 2)
        assert model.attention_s(batch([], [(chunk, cached)])) > 4 * 32 * 128 * pairs / flops


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("others", [3, 40, 150])
def test_a_longer_request_takes_longer(kernel: str, others: int, attention: Build, batch: MakeBatch) -> None:
    model = attention(kernel)
    seconds = [model.attention_s(batch([1000] * others + [length])) for length in (1000, 8000, 64000, 256000)]
    # A kernel may have idle SMs for the second's blocks.
    assert seconds == sorted(seconds)
    assert len(set(seconds)) >= 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_longer_chunk_or_more_cached_tokens_take_longer(kernel: str, attention: Build, batch: MakeBatch) -> None:
    model = attention(kernel)
    chunks = [model.attention_s(batch([2000] * 8, [(chunk, 1000)])) for chunk in (128, 512, 2048, 8192)]
    cached = [model.attention_s(batch([2000] * 8, [(2048, tokens)])) for tokens in (0, 4096, 32768)]
    assert chunks == sorted(set(chunks))
    assert cached == sorted(set(cached))


@pytest.mark.parametrize("kernel", KERNELS)
def test_attention_reads_lengths_only(kernel: str, attention: Build, batch: MakeBatch) -> None:
    made = batch([500, 3000, 70])
    attention(kernel).attention_s(made)
    assert made.decode_context_tokens.tolist() == [500, 3000, 70]


@pytest.mark.parametrize("kernel", KERNELS)
def test_tensor_parallel_ranks_with_fewer_heads_take_less_time(kernel: str, attention: Build, batch: MakeBatch) -> None:
    made = batch([4000] * 64)
    assert attention(kernel, heads=8, kv_heads=2).attention_s(made) < attention(kernel).attention_s(made) / 2


def test_unknown_names_are_refused_with_what_is_accepted(attention: Build) -> None:
    with pytest.raises(InputError, match="no attention kernel 'fa9': accepted are fa3, fa2, flashinfer-cuda"):
        build_attention("fa9", {}, heads=8, kv_heads=8, head_dim=128, sms=132)
    with pytest.raises(InputError, match="no attention model 'max': accepted are tile, mean, sum, skew"):
        attention("fa3", model="max")
    with pytest.raises(InputError, match="30 query heads are not a multiple of 8 KV heads"):
        attention("fa3", heads=30)
    with pytest.raises(InputError, match="group size 5, accepted are 1, 2, 3, 4, 8"):
        attention("flashinfer-cuda", heads=40)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dram_bytes_per_s": 0}, "fa3 coefficients: dram_bytes_per_s is 0, accepted is a number above 0"),
        ({"launch_s": -1.0}, "fa3 coefficients: launch_s is -1.0, accepted is a number >= 0"),
        ({"launch_s": "fast"}, "launch_s is 'fast'"),
        ({"max_splits": 0}, "max_splits is 0, accepted is a whole number >= 1"),
        ({"lunch_s": 1e-6}, "unknown field lunch_s, accepted are launch_s"),
    ],
)
def test_wrong_coefficients_are_named(change: dict[str, Any], message: str, coefficients: Any) -> None:
    with pytest.raises(InputError, match=message):
        build_attention("fa3", {**coefficients("fa3"), **change}, heads=32, kv_heads=8, head_dim=128, sms=132)


def test_a_missing_coefficient_is_named(coefficients: Any) -> None:
    given = coefficients("fa2")
    del given["drift_waves"]
    with pytest.raises(InputError, match="fa2 coefficients: drift_waves is missing"):
        build_attention("fa2", given, heads=32, kv_heads=8, head_dim=128, sms=188)
