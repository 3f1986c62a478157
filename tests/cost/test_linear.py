"""A model's linear layers: vLLM's merged shapes, split by tensor parallelism, tabulated over tokens."""

import numpy as np
import pytest

from l4sim.cost.gemm import gemm_s
from l4sim.cost.linear import layer_linear_s, lm_head_s
from l4sim.cost.profile import load_profile
from l4sim.specs.model import load_model, uniform_layers

LLAMA_8B = load_model("llama-3.1-8b")
LAYER = uniform_layers(LLAMA_8B)
H200 = load_profile("h200-sxm")


def test_shapes_of_llama_8b() -> None:
    # (32 + 2 x 8) heads of 128; 2 x 14,336.
    assert LAYER.products(LLAMA_8B.hidden) == ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))


def test_shapes_are_split_by_columns_and_then_by_rows() -> None:
    assert LAYER.of_rank(4).products(LLAMA_8B.hidden) == ((1536, 4096), (4096, 1024), (7168, 4096), (4096, 3584))


@pytest.mark.parametrize("name", ["llama-3.2-3b", "llama-3.1-8b", "qwen2.5-14b-1m", "qwen3-32b", "llama-3.1-70b"])
def test_shapes_and_lm_head_hold_every_weight(name: str) -> None:
    model = load_model(name)
    products = uniform_layers(model).products(model.hidden)
    weights = model.layers * sum(n * k for n, k in products) + model.vocab * model.hidden
    embedding = 0 if model.tie_embeddings else model.vocab * model.hidden
    assert weights + embedding == model.parameters


def test_a_layer_is_the_sum_of_its_products() -> None:
    by_hand = sum(gemm_s(17, n, k, H200.gpu, H200.linear)[0] for n, k in LAYER.products(LLAMA_8B.hidden))
    assert layer_linear_s(LLAMA_8B.hidden, LAYER, H200.gpu, H200.linear, np.array([5, 17]))[1] == pytest.approx(by_hand)


def test_one_token_takes_little_more_than_the_weights_bytes() -> None:
    # 218 million weights of a layer are 436 MB: 90.9 us at 4.8 TB/s.
    layer_s = layer_linear_s(LLAMA_8B.hidden, LAYER, H200.gpu, H200.linear, np.array([1]))[0]
    assert 90.9e-6 < layer_s < 1.5 * 90.9e-6


def test_lm_head_reads_the_vocabulary() -> None:
    # 128,256 x 4,096 bf16 are 1.05 GB: 219 us at 4.8 TB/s; half of it at tensor parallel 2.
    whole, half = (lm_head_s(LLAMA_8B, ranks, H200.gpu, H200.linear, np.array([1]))[0] for ranks in (1, 2))
    assert 219e-6 < whole < 1.4 * 219e-6
    assert half == pytest.approx(whole / 2, rel=0.1)


def test_prefill_scales_with_tokens() -> None:
    half, whole = layer_linear_s(LLAMA_8B.hidden, LAYER, H200.gpu, H200.linear, np.array([4096, 8192]))
    assert whole / half == pytest.approx(2, rel=0.1)
