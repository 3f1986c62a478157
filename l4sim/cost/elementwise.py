"""Seconds of the operators that only move data: norms, rotary embedding, activation, KV cache write, embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.json_files import NonNegative, Positive
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.gpu import GPU
from l4sim.specs.layers import LayerGroup
from l4sim.specs.matrix import Absent
from l4sim.specs.model import Model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Elements per token and hidden column of a norm with its residual addition.
_NORM_ELEMENTS = 4


@dataclass(frozen=True, slots=True)
class ElementwiseCoefficients:
    """What one GPU needs for operators bound by memory."""

    kernel_s: NonNegative
    """Seconds of one kernel on hardly any data, the gap to the next one included."""
    bandwidth_fraction: Positive
    """Reached fraction of the peak memory bandwidth."""


def layer_elementwise_s(
    hidden: int, layer: LayerGroup, gpu: GPU, coefficients: ElementwiseCoefficients, tokens: IntArray
) -> FloatArray:
    """Seconds of one layer's element-wise operators by tokens in the batch, of their shape ``[points]``.

    ``hidden`` is the model's; ``layer`` is one rank's share (``LayerGroup.of_rank``). A kernel takes ``kernel_s`` and
    the time of its bytes at the reached bandwidth. Source: ours; that caches hold some of the bytes is left out.
    """
    attention, mlp = layer.attention, layer.mlp
    norms = sum(not isinstance(part, Absent) for part in (attention, mlp))
    kernels = norms + attention.elementwise_kernels + mlp.elementwise_kernels
    elements = norms * _NORM_ELEMENTS * hidden + attention.moved_elements + mlp.moved_elements
    return _seconds(kernels, size_bytes(elements, layer.dtypes.activations), gpu, coefficients, tokens)


def embedding_s(model: Model, gpu: GPU, coefficients: ElementwiseCoefficients, tokens: IntArray) -> FloatArray:
    """Seconds of the embedding lookup and the final norm by tokens in the batch. Source: ours."""
    bytes_per_token = size_bytes((2 + 4) * model.hidden, model.dtype)
    return _seconds(2, bytes_per_token, gpu, coefficients, tokens)


def _seconds(
    kernels: int, bytes_per_token: int, gpu: GPU, coefficients: ElementwiseCoefficients, tokens: IntArray
) -> FloatArray:
    bandwidth = gpu.memory_bytes_per_s * coefficients.bandwidth_fraction
    return np.asarray(kernels * coefficients.kernel_s + tokens * (bytes_per_token / bandwidth))
