"""What unequal lengths cost: as measured, and as the profile predicts for the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from l4sim.calibration.measured.folder import read_attention
from l4sim.calibration.points.batches import BatchPoint
from l4sim.cost.attention import build_attention
from l4sim.cost.profile import Profile

_EQUAL = "uniform"


@dataclass(frozen=True, slots=True)
class MeasuredPenalty:
    """Time of a batch of unequal lengths over that of equal ones, with as many requests and tokens in all."""

    kernel: str
    pattern: str
    """How the lengths are spread: ``bimodal`` (one in eight is 16 times as long), ``lognormal`` (sigma 1) or
    ``one-long`` (one has half of the tokens)."""
    group_size: int
    """Query heads per KV head."""
    requests: int
    total_tokens: int
    measured: float
    predicted: float


def measured_penalties(folder: Path, profile: Profile) -> list[MeasuredPenalty]:
    """All of a measured profile's pairs of batches, in the order of the unequal ones; planned for CUDA graphs if any.

    Raises:
        InputError: the points cannot be read.
    """
    points = [point for point in read_attention(folder, profile.gpu) if not point.batch.prefills]
    captured = {point.kernel for point in points if point.planned == "graph"}
    served = [point for point in points if (point.planned == "graph") == (point.kernel in captured)]
    equal = {_size(point): point for point in served if point.pattern == _EQUAL}
    return [
        _penalty(point, equal[_size(point)], profile)
        for point in served
        if point.pattern != _EQUAL and point.kernel in profile.kernels and _size(point) in equal
    ]


def _size(point: BatchPoint) -> tuple[object, ...]:
    batch = point.batch
    return point.kernel, point.shape, len(batch.decode_context_tokens), batch.decode_context_sum


def _penalty(unequal: BatchPoint, equal: BatchPoint, profile: Profile) -> MeasuredPenalty:
    shape, batch = unequal.shape, unequal.batch
    model = build_attention(
        unequal.kernel,
        profile.kernels[unequal.kernel].coefficients,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        sms=shape.sms,
    )
    return MeasuredPenalty(
        unequal.kernel,
        unequal.pattern,
        shape.group_size,
        len(batch.decode_context_tokens),
        batch.decode_context_sum,
        unequal.seconds / equal.seconds,
        model.attention_s(batch) / model.attention_s(equal.batch),
    )


def within(penalties: Sequence[MeasuredPenalty], least: int, most: int) -> list[MeasuredPenalty]:
    """Those of batches with ``least`` to ``most`` requests."""
    return [penalty for penalty in penalties if least <= penalty.requests <= most]
