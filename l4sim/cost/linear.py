"""Seconds of a model's linear layers and lm_head, tabulated once over the tokens of a batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.gemm import GemmCoefficients, gemm_s
from l4sim.specs.gpu import GPU
from l4sim.specs.model import Model

FloatArray = NDArray[np.float64]


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
    model: Model, tensor_parallel: int, gpu: GPU, coefficients: GemmCoefficients, max_tokens: int
) -> FloatArray:
    """Seconds of one layer's products for 0 to ``max_tokens`` tokens, shape ``[max_tokens + 1]``."""
    tokens = np.arange(1, max_tokens + 1)
    products = (gemm_s(tokens, n, k, gpu, coefficients) for n, k in layer_shapes(model, tensor_parallel))
    return np.concatenate(([0.0], np.sum(list(products), axis=0)))


def lm_head_s(
    model: Model, tensor_parallel: int, gpu: GPU, coefficients: GemmCoefficients, max_sequences: int
) -> FloatArray:
    """Seconds of the lm_head for 0 to ``max_sequences`` sampled sequences, shape ``[max_sequences + 1]``."""
    sequences = np.arange(1, max_sequences + 1)
    vocab = -(-model.vocab // tensor_parallel)
    return np.concatenate(([0.0], gemm_s(sequences, vocab, model.hidden, gpu, coefficients)))
