"""Seconds of the operators that only move data: norms, rotary embedding, activation, KV cache write, embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.json_files import NonNegative, Positive
from l4sim.specs.gpu import GPU
from l4sim.specs.model import Model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Two norms with their residual addition, rotary embedding, KV cache write, activation.
_KERNELS_PER_LAYER = 5


@dataclass(frozen=True, slots=True)
class ElementwiseCoefficients:
    """What one GPU needs for operators bound by memory."""

    kernel_s: NonNegative
    """Seconds of one kernel on hardly any data, the gap to the next one included."""
    bandwidth_fraction: Positive
    """Reached fraction of the peak memory bandwidth."""


def layer_elementwise_s(
    model: Model, tensor_parallel: int, gpu: GPU, coefficients: ElementwiseCoefficients, tokens: IntArray
) -> FloatArray:
    """Seconds of one layer's element-wise operators by tokens in the batch, of their shape ``[points]``.

    A kernel takes ``kernel_s`` and the time of its bytes at the reached bandwidth. Source: ours; that caches hold
    some of the bytes is left out.
    """
    heads = model.heads // tensor_parallel
    kv_heads = max(1, model.kv_heads // tensor_parallel)
    norms = 2 * 4 * model.hidden
    rotary = 2 * (heads + kv_heads) * model.head_dim
    cache_write = 2 * 2 * kv_heads * model.head_dim
    activation = 3 * model.intermediate // tensor_parallel
    bytes_per_token = (norms + rotary + cache_write + activation) * model.dtype_bytes
    return _seconds(_KERNELS_PER_LAYER, bytes_per_token, gpu, coefficients, tokens)


def embedding_s(model: Model, gpu: GPU, coefficients: ElementwiseCoefficients, tokens: IntArray) -> FloatArray:
    """Seconds of the embedding lookup and the final norm by tokens in the batch. Source: ours."""
    bytes_per_token = (2 + 4) * model.hidden * model.dtype_bytes
    return _seconds(2, bytes_per_token, gpu, coefficients, tokens)


def _seconds(
    kernels: int, bytes_per_token: int, gpu: GPU, coefficients: ElementwiseCoefficients, tokens: IntArray
) -> FloatArray:
    bandwidth = gpu.memory_bytes_per_s * coefficients.bandwidth_fraction
    return np.asarray(kernels * coefficients.kernel_s + tokens * (bytes_per_token / bandwidth))
