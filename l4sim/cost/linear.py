"""Seconds of a model's linear layers and lm_head."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.gemm import GemmCoefficients, gemm_s
from l4sim.specs.gpu import GPU
from l4sim.specs.layers import LayerGroup
from l4sim.specs.model import Model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def layer_linear_s(
    hidden: int, layer: LayerGroup, gpu: GPU, coefficients: GemmCoefficients, tokens: IntArray
) -> FloatArray:
    """Seconds of one layer's products by tokens in the batch (>= 1), of their shape ``[points]``.

    ``hidden`` is the model's; ``layer`` is one rank's share (``LayerGroup.of_rank``).
    """
    products = (gemm_s(tokens, n, k, gpu, coefficients) for n, k in layer.products(hidden))
    return np.asarray(np.sum(list(products), axis=0))


@lru_cache(maxsize=64)
def layer_linear_table_s(
    hidden: int, layer: LayerGroup, gpu: GPU, coefficients: GemmCoefficients, max_tokens: int
) -> FloatArray:
    """``layer_linear_s`` of 1 to ``max_tokens`` tokens, read-only: made once for all runs of a process."""
    seconds = layer_linear_s(hidden, layer, gpu, coefficients, np.arange(1, max_tokens + 1))
    seconds.flags.writeable = False
    return seconds


def lm_head_s(
    model: Model, tensor_parallel: int, gpu: GPU, coefficients: GemmCoefficients, sequences: IntArray
) -> FloatArray:
    """Seconds of the lm_head by sampled sequences (>= 1), of their shape ``[points]``."""
    return gemm_s(sequences, -(-model.vocab // tensor_parallel), model.hidden, gpu, coefficients)
