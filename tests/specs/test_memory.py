"""KV cache memory: block counts near those that vLLM logs, and models that do not fit."""

from dataclasses import replace

import pytest

from l4sim.errors import InputError
from l4sim.specs.attention import VariedQuery
from l4sim.specs.gpu import GPUS
from l4sim.specs.memory import check_tensor_parallel, kv_blocks, layout_of, non_kv_bytes
from l4sim.specs.model import dense_model, load_model, with_kv_dtype

LLAMA_8B = load_model("llama-3.1-8b")


@pytest.mark.parametrize(
    ("gpu", "logged_tokens"),
    [
        # vLLM V1's "GPU KV cache size" for Llama-3.1-8B at utilisation 0.9 and 8,192 batched tokens.
        ("h100-sxm", 447_088),
        ("h100-sxm", 442_160),
    ],
)
def test_tokens_are_within_two_percent_of_logged_ones(gpu: str, logged_tokens: int) -> None:
    assert 16 * kv_blocks(LLAMA_8B, GPUS[gpu]) == pytest.approx(logged_tokens, rel=0.02)


def test_what_is_not_kv_cache_is_near_the_logged_sum() -> None:
    """vLLM's memory profiling on that H100: 0.35 GiB non-torch and 1.24 GiB peak activations."""
    assert non_kv_bytes(LLAMA_8B) / 2**30 == pytest.approx(0.35 + 1.24, abs=0.1)


def test_ranks_of_one_model_keep_memory_for_one_another() -> None:
    """NCCL's buffers and the custom all-reduce's: 0.75 GiB on every GPU, beside half of the MLP's activations."""
    activations = 8192 * (3 * 14336 / 2 + 4 * LLAMA_8B.hidden) * 2
    sampler = 2 * 4 * 256 * LLAMA_8B.vocab
    assert non_kv_bytes(LLAMA_8B, tensor_parallel=2) == (0.35 + 0.75) * 2**30 + activations + sampler


def test_what_ranks_keep_for_one_another_is_no_kv_cache() -> None:
    gpu = GPUS["h200-sxm"]
    free = 0.9 * gpu.memory_bytes - LLAMA_8B.weight_bytes / 2 - non_kv_bytes(LLAMA_8B, tensor_parallel=2)
    assert kv_blocks(LLAMA_8B, gpu, 2) == free // 2**20 - 1


def test_blocks_by_hand() -> None:
    gpu = GPUS["h200-sxm"]
    free = 0.9 * gpu.memory_bytes - LLAMA_8B.weight_bytes - non_kv_bytes(LLAMA_8B)
    # 16 tokens of 131,072 bytes are a block of 2 MiB; one block is vLLM's null block.
    assert kv_blocks(LLAMA_8B, gpu) == free // 2**21 - 1


def test_tensor_parallelism_splits_weights_and_kv_heads() -> None:
    one, two = (kv_blocks(LLAMA_8B, GPUS["h100-sxm"], ranks) for ranks in (1, 2))
    assert 2 * one < two < 2.7 * one


def test_kv_heads_are_replicated_beyond_their_number() -> None:
    """At 16 ranks of 8 KV heads each rank still holds one: a block is as large as at 8 ranks, weights are halved."""
    model = load_model("llama-3.1-70b")
    eight, sixteen = (kv_blocks(model, GPUS["h100-sxm"], ranks) for ranks in (8, 16))
    assert eight < sixteen < 1.2 * eight


def test_larger_batches_leave_fewer_blocks() -> None:
    small, large = (kv_blocks(LLAMA_8B, GPUS["h100-sxm"], max_num_batched_tokens=tokens) for tokens in (2048, 16384))
    assert large < small


def test_a_model_that_does_not_fit_says_by_how_much() -> None:
    # 70.55e9 x 2 bytes are 131.4 GiB, on 71.2 usable.
    with pytest.raises(InputError, match=r"llama-3.1-70b does not fit h100-sxm.* 6[0-9]\.\d GiB short"):
        kv_blocks(load_model("llama-3.1-70b"), GPUS["h100-sxm"])


def test_heads_that_do_not_split_evenly_are_refused() -> None:
    with pytest.raises(InputError, match="tensor parallel 3 does not divide 32 heads"):
        check_tensor_parallel(LLAMA_8B, 3)
    odd = dense_model(
        "odd", layers=1, hidden=640, intermediate=640, heads=40, kv_heads=8, head_dim=16, vocab=8, max_model_len=8
    )
    with pytest.raises(InputError, match="tensor parallel 5 neither divides 8 KV heads"):
        check_tensor_parallel(odd, 5)


def test_a_utilization_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"utilization is 1\.5"):
        kv_blocks(LLAMA_8B, GPUS["h200-sxm"], utilization=1.5)


def test_kv_in_half_the_bytes_makes_twice_the_blocks() -> None:
    gpu = GPUS["h200-sxm"]
    assert kv_blocks(with_kv_dtype(LLAMA_8B, "fp8"), gpu) == pytest.approx(2 * kv_blocks(LLAMA_8B, gpu), abs=2)


def test_where_half_of_the_layers_forget_blocks_are_half_as_large() -> None:
    """Each holds 16 tokens of 16 layers: there is one table for those with windows, and one for the others."""
    (group,) = LLAMA_8B.groups
    sliding = replace(group, count=16, attention=VariedQuery(32, 8, 128, 128, window_tokens=512))
    half = replace(LLAMA_8B, groups=(sliding, replace(group, count=16)))
    gpu = GPUS["h200-sxm"]
    assert kv_blocks(half, gpu) == pytest.approx(2 * kv_blocks(LLAMA_8B, gpu), abs=2)
    assert [(group.kind, group.count) for group in layout_of(half).groups] == [("window", 1), ("full", 1)]
