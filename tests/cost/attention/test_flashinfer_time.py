"""FlashInfer's kernels: the jumps of their planners, seen in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4sim.batch import Batch
from l4sim.cost.attention.flashinfer import KERNELS, counted_chunks
from l4sim.cost.model import AttentionModel

FLASHINFER_KERNELS = [kernel.name for kernel in KERNELS]

Build = Callable[..., AttentionModel]
MakeBatch = Callable[..., Batch]


def jump(model: AttentionModel, batch: MakeBatch, requests: int) -> float:
    """Time of a skewed batch of so many requests over that of one request less."""
    less, more = (model.attention_s(batch([1024] * (count - 1) + [99328])) for count in (requests - 1, requests))
    return more / less


def test_tensor_cores_jump_at_33_requests(attention: Build, batch: MakeBatch) -> None:
    assert jump(attention("flashinfer-tensor"), batch, 33) > 1.8
    assert jump(attention("flashinfer-tensor"), batch, 34) == pytest.approx(1, abs=0.02)


def test_cuda_cores_jump_at_132_requests(attention: Build, batch: MakeBatch) -> None:
    assert jump(attention("flashinfer-cuda"), batch, 132) > 1.8
    assert jump(attention("flashinfer-cuda"), batch, 33) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("requests", [33, 132])
def test_the_balanced_kernel_does_not_jump(requests: int, attention: Build, batch: MakeBatch) -> None:
    assert jump(attention("flashinfer-batch"), batch, requests) == pytest.approx(1, abs=0.02)


def test_skew_hurts_tensor_cores_most(attention: Build, batch: MakeBatch) -> None:
    skewed = batch([512] * 62 + [49664] * 2)
    seconds = {kernel: attention(kernel).attention_s(skewed) for kernel in FLASHINFER_KERNELS}
    assert seconds["flashinfer-tensor"] > 3 * max(seconds["flashinfer-cuda"], seconds["flashinfer-batch"])


@pytest.mark.parametrize("kernel", FLASHINFER_KERNELS)
def test_prefill_is_a_launch_of_its_own(kernel: str, attention: Build, batch: MakeBatch) -> None:
    model = attention(kernel)
    decodes, prefills = batch([900, 70, 4000]), batch([], [(512, 100), (64, 0)])
    together = model.attention_s(batch([900, 70, 4000], [(512, 100), (64, 0)]))
    assert together == pytest.approx(model.attention_s(decodes) + model.attention_s(prefills))


@pytest.mark.parametrize("kernel", FLASHINFER_KERNELS)
def test_prompts_that_come_again_cost_what_their_own_model_says(
    kernel: str, attention: Build, batch: MakeBatch
) -> None:
    prompts = batch([], [(2000, 0), (3000, 4000)])
    large, small = (attention(kernel, heads=heads).attention_s(prompts) for heads in (64, 32))
    assert large > 1.5 * small
    assert attention(kernel, heads=64).attention_s(prompts) == large


def test_equal_chunks_are_one_where_all_fit() -> None:
    assert counted_chunks([300, 100], 128, slots=4) == ([128, 44, 100], [2, 1, 1])


def test_chunks_that_wait_keep_the_order_of_requests() -> None:
    assert counted_chunks([300, 100], 128, slots=3) == ([128, 44, 128, 100], [2, 1, 0, 1])


def test_contexts_that_are_not_cut_are_chunks_themselves() -> None:
    assert counted_chunks([300, 100], 304, slots=1) == ([300, 100], [1, 1])


def prompt_s(model: AttentionModel, batch: MakeBatch, chunk_tokens: int, cached_tokens: int = 0) -> float:
    return model.attention_s(batch([], [(chunk_tokens, cached_tokens)]))


def test_one_sm_with_two_prompt_blocks_takes_as_long_as_all_with_two(attention: Build, batch: MakeBatch) -> None:
    # Groups of 3: 704 and 1,408 tokens are 17 and 33 query tiles, with 8 KV heads 136 and 264 blocks for 132 SMs.
    model = attention("flashinfer-tensor", heads=24)
    few, all_ = (prompt_s(model, batch, tokens, 65536) for tokens in (704, 1408))
    assert all_ == pytest.approx(few, rel=0.02)


def test_two_prompt_blocks_on_an_sm_take_less_than_twice_one(
    coefficients: Callable[[str], dict[str, float]], attention: Build, batch: MakeBatch
) -> None:
    # 128 tokens of groups of 3 are 3 query tiles: of 4 prompts 96 blocks on as many SMs, of 11 two on each of 132.
    model, launch_s = attention("flashinfer-tensor", heads=24), coefficients("flashinfer-tensor")["prefill_launch_s"]
    one, two = (model.attention_s(batch([], [(128, 0)] * prompts)) - launch_s for prompts in (4, 11))
    assert two == pytest.approx(1.5 * one, rel=0.05)


def test_merging_a_split_prompt_can_cost_more_than_the_split_saves(attention: Build, batch: MakeBatch) -> None:
    # As measured on H200: 53.5 us for 512 tokens in two chunks, 41.4 us for 768 in one.
    model = attention("flashinfer-tensor", heads=24)
    assert prompt_s(model, batch, 512) > prompt_s(model, batch, 768)


def test_a_full_batch_on_cuda_cores_takes_its_arithmetic(
    coefficients: Callable[[str], dict[str, float]], attention: Build, batch: MakeBatch
) -> None:
    # 132 requests of 8 KV heads: 8 blocks on each SM.
    flops = 4 * 32 * 128 * 132 * 8192 / coefficients("flashinfer-cuda")["cuda_core_flops"]
    seconds = attention("flashinfer-cuda").attention_s(batch([8192] * 132))
    assert flops < seconds < 1.2 * flops


def test_blocks_of_long_requests_that_meet_on_an_sm_hold_up_cuda_cores(attention: Build, batch: MakeBatch) -> None:
    # 133 requests: a request's 8 heads go to 8 SMs, those of requests next to one another partly to the same ones.
    model = attention("flashinfer-cuda")
    together = model.attention_s(batch([9000] * 8 + [100] * 125))
    apart = model.attention_s(batch(([9000] + [100] * 15) * 8 + [100] * 5))
    assert together > 1.5 * apart
