"""Seconds of one layer's attention: decodes, prefill chunks and batches of both, per kernel; and their fits.

A model sees the batch as it is (``tile``: the kernel's own split over the GPU) or coarser, for comparison: ``mean``,
``sum`` and ``skew``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from l4sim.cost.attention.coarse import MeanAttention, SkewAttention, skew_alpha, sum_attention
from l4sim.cost.attention.fa3 import FA3Coefficients, fa3_attention
from l4sim.cost.attention.points import UniformPoints
from l4sim.cost.attention.shape import Shape
from l4sim.cost.fitting import Errors
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError
from l4sim.specs.fields import Fields
from l4sim.specs.gpu import GPU

KERNELS = ("fa3",)
MODELS = ("tile", "mean", "sum", "skew")

_ALPHA = "skew_alpha"


def build_attention(
    kernel: str,
    coefficients: Mapping[str, Any],
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    sms: int,
    model: str = "tile",
    warm_l2: bool = False,
) -> AttentionModel:
    """Build a kernel's attention model from its coefficients, as ``fit_attention`` returns them.

    ``heads`` and ``kv_heads`` are those of one tensor-parallel rank; ``model`` is ``tile``, ``mean``, ``sum`` or
    ``skew``. Benchmarks repeat one call, and find part of the keys and values in L2; an engine streams its weights
    through L2 between two calls, so unless ``warm_l2`` is set nothing is taken to be there.

    Raises InputError for an unknown kernel, model or coefficient, a missing or impossible coefficient, and query heads
    that are not a multiple of the KV heads.
    """
    if kernel not in KERNELS:
        raise InputError(f"no attention kernel '{kernel}': accepted are {', '.join(KERNELS)}")
    if model not in MODELS:
        raise InputError(f"no attention model '{model}': accepted are {', '.join(MODELS)}")
    if heads % kv_heads:
        raise InputError(f"{heads} query heads are not a multiple of {kv_heads} KV heads")
    given = Fields(coefficients, f"{kernel} coefficients")
    names = [field.name for field in fields(FA3Coefficients)]
    given.only(*names, _ALPHA)
    c = FA3Coefficients(
        **{name: given.number(name) for name in names if name != "max_splits"}, max_splits=given.count("max_splits")
    )
    tile = fa3_attention(Shape(heads, kv_heads, head_dim, sms), c if warm_l2 else replace(c, cached_bytes=0.0))
    if model == "mean":
        return MeanAttention(tile)
    if model == "sum":
        return sum_attention(tile)
    return SkewAttention(tile, given.number(_ALPHA)) if model == "skew" else tile


@dataclass(frozen=True, slots=True)
class FitReport:
    """Errors of a fit on points that it has not seen, by kind of batch (``decode``, ``prefill``)."""

    errors: Mapping[str, Errors]

    def to_json(self) -> dict[str, dict[str, float]]:
        """As plain numbers."""
        return {kind: errors.to_json() for kind, errors in self.errors.items()}


def fit_attention(
    kernel: str, decode_points: UniformPoints, prefill_points: UniformPoints, gpu: GPU
) -> tuple[dict[str, Any], FitReport]:
    """Fit a kernel's coefficients to uniform measurements; a fifth is held out for the report.

    Points that beat the GPU's roofline are left out of both. Decode's errors are on points above 20 µs, below which
    launches hide what is modelled.

    Raises InputError for a kernel that has no fit to such points.
    """
    if kernel not in KERNELS:
        raise InputError(f"no fit of attention kernel '{kernel}': accepted are {', '.join(KERNELS)}")
    from l4sim.cost.attention.fa3_fit import fit_fa3

    c, errors = fit_fa3(decode_points, prefill_points, gpu)
    return {**asdict(c), _ALPHA: skew_alpha(fa3_attention(Shape(32, 8, 128, gpu.sms), c))}, FitReport(errors)
