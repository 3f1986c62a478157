"""An estimate of how long a point takes to measure, from the bytes that it moves and the arithmetic that it does."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.specs.model import Model, uniform_layers
from validate_gpu.measure.points import (
    AllReducePoint,
    AttentionPoint,
    ElementwisePoint,
    IterationPoint,
    KvCopyPoint,
    LayersPoint,
    Point,
    ProductPoint,
    SampledPoint,
)
from validate_gpu.measure.served import SAMPLES


@dataclass(frozen=True, slots=True)
class Speed:
    """Rough figures of a device, good to a factor of two, which is enough for a plan."""

    bytes_per_s: float
    flops: float
    launch_s: float
    """One operator on hardly any data."""
    prepare_s: float
    """Making data, planning, capturing and checking one point."""
    request_s: float
    """Checking one request's attention against the reference."""
    sample_s: float
    """Repeats go on for so long..."""
    least_repeats: int
    """...and are at least so many."""
    cold_bytes: float
    """What is run through between two uses of the same data."""


GPU_SPEED = Speed(3e12, 4e14, 5e-6, 0.06, 3e-4, 0.02, 7, 2.5e8)
CPU_SPEED = Speed(5e9, 5e10, 2e-5, 0.003, 2e-4, 0.04, 7, 8e6)


def measure_s(point: Point, speed: Speed, item_bytes: int) -> float:
    """Seconds to measure a point on a device of that speed, whose elements have ``item_bytes``."""
    once_s, size_bytes = _once_s(point, speed, item_bytes)
    copied = isinstance(point, AttentionPoint | ProductPoint | ElementwisePoint)
    copies = max(1.0, min(speed.cold_bytes / size_bytes, 512.0)) if copied else 1.0
    # Warm-up and the check cost about two more passes.
    sample_s = speed.sample_s * (SAMPLES if isinstance(point, IterationPoint) else 1)
    sampled_s = max(sample_s, (speed.least_repeats + 2) * once_s * copies)
    checked = len(point.contexts) + len(point.chunks) if isinstance(point, AttentionPoint) else 1
    return speed.prepare_s + checked * speed.request_s + sampled_s


def _once_s(point: Point, speed: Speed, item_bytes: int) -> tuple[float, float]:
    """Seconds of one run, and the bytes of its data."""
    size_bytes, flops, launches = _work(point, item_bytes)
    return launches * speed.launch_s + max(size_bytes / speed.bytes_per_s, flops / speed.flops), size_bytes


def _work(point: Point, item_bytes: int) -> tuple[float, float, int]:
    """Bytes, arithmetic and launches of one run."""
    match point:
        case AttentionPoint():
            tokens = sum(point.contexts) + sum(chunk + cached for chunk, cached in point.chunks)
            pairs = sum(chunk * (cached + chunk) for chunk, cached in point.chunks)
            attention = uniform_layers(point.model).attention
            kv_bytes = float(tokens * attention.kv_elements * item_bytes)
            return kv_bytes, 4.0 * pairs * attention.heads * attention.head_dim, 1
        case ProductPoint():
            elements = point.n * point.k + point.m * point.k + point.m * point.n
            return float(elements * item_bytes), 2.0 * point.m * point.n * point.k, 1
        case ElementwisePoint():
            return float(point.size_bytes), 0.0, 1
        case LayersPoint():
            weights = _layer_weights(point.model) * point.layers
            return float(weights * item_bytes), 2.0 * weights * point.tokens, 25 * point.layers + 4
        case SampledPoint():
            weights = point.model.vocab * point.model.hidden
            return float(weights * item_bytes), 2.0 * weights * point.sequences, 2
        case IterationPoint():
            model = point.model
            weights = model.layers * _layer_weights(model) + model.vocab * model.hidden
            tokens = len(point.contexts) + sum(chunk for chunk, _ in point.chunks)
            return float(weights * item_bytes), 2.0 * weights * tokens, 30 * model.layers
        case KvCopyPoint():
            # Gathered, then scattered: each reads and writes.
            return 4.0 * point.tokens * point.model.kv_bytes_per_token, 0.0, 8
        case AllReducePoint():
            return 8.0 * point.size_bytes, 0.0, 4


def _layer_weights(model: Model) -> int:
    return sum(n * k for n, k in uniform_layers(model).products(model.hidden))
