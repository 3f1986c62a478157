"""Element-wise operators: a launch per kernel and bytes over bandwidth."""

import numpy as np
import pytest

from l4sim.cost.elementwise import ElementwiseCoefficients, embedding_s, layer_elementwise_s
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model, uniform_layers

LLAMA_8B = load_model("llama-3.1-8b")
HIDDEN, LAYER = LLAMA_8B.hidden, uniform_layers(LLAMA_8B)
H200 = GPUS["h200-sxm"]
IDEAL = ElementwiseCoefficients(kernel_s=0.0, bandwidth_fraction=1.0)


def test_bytes_of_a_layer_by_hand() -> None:
    # Norms 2 x 4 x 4,096; rotary 2 x 40 x 128; cache write 4 x 8 x 128; activation 3 x 14,336; 2 bytes each.
    values = 32_768 + 10_240 + 4_096 + 43_008
    assert layer_elementwise_s(HIDDEN, LAYER, H200, IDEAL, np.array([1000]))[0] == pytest.approx(
        1000 * 2 * values / 4.8e12
    )


def test_a_small_batch_pays_five_launches_per_layer() -> None:
    launches = ElementwiseCoefficients(kernel_s=2e-6, bandwidth_fraction=1.0)
    assert layer_elementwise_s(HIDDEN, LAYER, H200, launches, np.array([1]))[0] == pytest.approx(10e-6, rel=0.01)


def test_tensor_parallelism_splits_all_but_the_norms() -> None:
    one, two = (layer_elementwise_s(HIDDEN, LAYER.of_rank(ranks), H200, IDEAL, np.array([100]))[0] for ranks in (1, 2))
    assert two == pytest.approx(100 * 2 * (32_768 + (10_240 + 4_096 + 43_008) / 2) / 4.8e12)
    assert two < one


def test_embedding_grows_with_tokens() -> None:
    assert np.all(np.diff(embedding_s(LLAMA_8B, H200, IDEAL, np.arange(1, 10))) > 0)
