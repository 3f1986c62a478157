"""Seconds of a model's linear layers and lm_head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.gemm import GemmCoefficients, gemm_s
from l4sim.specs.gpu import GPU
from l4sim.specs.model import Model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def layer_shapes(model: Model, tensor_parallel: int) -> tuple[tuple[int, int], ...]:
    """``(n, k)`` of one rank's products in one layer, merged as vLLM does: QKV, output, gate and up, down."""
    heads = model.heads // tensor_parallel
    kv_heads = max(1, model.kv_heads // tensor_parallel)
    intermediate = model.intermediate // tensor_parallel
    return (
        ((heads + 2 * kv_heads) * model.head_dim, model.hidden),
        (model.hidden, heads * model.head_dim),
        (2 * intermediate, model.hidden),
        (model.hidden, intermediate),
    )


def layer_linear_s(
    model: Model, tensor_parallel: int, gpu: GPU, coefficients: GemmCoefficients, tokens: IntArray
) -> FloatArray:
    """Seconds of one layer's products by tokens in the batch (>= 1), of their shape ``[points]``."""
    products = (gemm_s(tokens, n, k, gpu, coefficients) for n, k in layer_shapes(model, tensor_parallel))
    return np.asarray(np.sum(list(products), axis=0))


def lm_head_s(
    model: Model, tensor_parallel: int, gpu: GPU, coefficients: GemmCoefficients, sequences: IntArray
) -> FloatArray:
    """Seconds of the lm_head by sampled sequences (>= 1), of their shape ``[points]``."""
    return gemm_s(sequences, -(-model.vocab // tensor_parallel), model.hidden, gpu, coefficients)
