"""A device whose times follow a law, so that what becomes of its points can be worked out exactly."""

from __future__ import annotations

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.torch_cpu import TorchCpuAttention, TorchCpuCoefficients
from l4sim.cost.gemm import GemmCoefficients, gemm_s
from l4sim.specs.gpu import GPU
from l4sim.specs.model import Model, uniform_layers
from validate_gpu.measure.points import (
    AttentionPoint,
    Chunk,
    ElementwisePoint,
    IterationPoint,
    KvCopyPoint,
    LayersPoint,
    Point,
    ProductPoint,
    Sample,
    SampledPoint,
)

CPU = GPU("cpu", 1, 16 * 10**9, 50e9, 100e9, 1 << 20, 1e10, "a law")
ATTENTION = TorchCpuCoefficients(
    launch_s=2e-5, request_s=6e-5, kv_element_s=2e-10, spilled_element_s=1e-10, pair_element_s=5e-11
)
PRODUCTS = GemmCoefficients(5e-6, 0.8, 0.7, 2e-6, 100e9, 5e-6, 3.0)
ELEMENTWISE_S, ELEMENTWISE_BYTES_PER_S = 4e-6, 2e10
HOST_S = 3e-4


def layer_s(tokens: int) -> float:
    """One layer without attention."""
    return 1e-4 + 2e-6 * tokens


def once_s(tokens: int) -> float:
    """Embedding and final norm."""
    return 3e-5 + 1e-7 * tokens


def sampled_s(sequences: int) -> float:
    """The head."""
    return 4e-5 + 1e-6 * sequences


def attention_s(model: Model, batch: Batch) -> float:
    """One layer's attention."""
    shape = Shape(**uniform_layers(model).attention.sizes, sms=1)
    return TorchCpuAttention(shape, ATTENTION).attention_s(batch)


def iteration_s(model: Model, batch: Batch) -> float:
    """A whole iteration."""
    layers_s = model.layers * (layer_s(batch.tokens) + attention_s(model, batch))
    return HOST_S + layers_s + once_s(batch.tokens) + sampled_s(batch.sampled)


def batch_of(contexts: tuple[int, ...], chunks: tuple[Chunk, ...] = ()) -> Batch:
    """A point's batch."""
    return Batch(np.array(contexts, np.int64), sum(contexts), tuple(Prefill(*chunk) for chunk in chunks))


class LawBench:
    """Measures by the law, at once."""

    def measure(self, point: Point) -> Sample:
        """The law's seconds, without any spread."""
        return Sample(law_s(point), 0.0, 7, "host", 0.0)


def law_s(point: Point) -> float:
    """Seconds of a point."""
    match point:
        case AttentionPoint():
            return attention_s(point.model, batch_of(point.contexts, point.chunks))
        case ProductPoint():
            return float(gemm_s(point.m, point.n, point.k, CPU, PRODUCTS)[0])
        case ElementwisePoint():
            return ELEMENTWISE_S + point.size_bytes / ELEMENTWISE_BYTES_PER_S
        case LayersPoint():
            return point.layers * layer_s(point.tokens) + once_s(point.tokens) + sampled_s(1)
        case SampledPoint():
            return sampled_s(point.sequences)
        case IterationPoint():
            return iteration_s(point.model, batch_of(point.contexts, point.chunks))
        case KvCopyPoint():
            return 1e-5 + point.tokens * 1e-7
        case _:
            raise AssertionError(point)
