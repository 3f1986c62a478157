"""Seconds of one layer's attention: decodes, prefill chunks and batches of both, per kernel; and their fits.

A model sees the batch as it is (``tile``: the kernel's own split over the GPU) or coarser, for comparison: ``mean``,
``sum`` and ``skew``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from l4sim.cost.attention import flashinfer
from l4sim.cost.attention.coarse import MeanAttention, SkewAttention, skew_alpha, sum_attention
from l4sim.cost.attention.fa2 import FA2Coefficients, fa2_attention
from l4sim.cost.attention.fa3 import FA3Coefficients, fa3_attention
from l4sim.cost.attention.flashinfer import FlashInferCoefficients, flashinfer_attention
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.torch_cpu import TORCH_CPU, TorchCpuAttention, TorchCpuCoefficients
from l4sim.cost.fitting import Errors
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError
from l4sim.specs.fields import Fields
from l4sim.specs.gpu import GPU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from l4sim.cost.attention.batch_points import BatchPoint
    from l4sim.cost.attention.fa2_fit import SkewErrors
    from l4sim.cost.attention.points import MixedPoints, SkewPoints, UniformPoints

FLASHINFER_KERNELS = (flashinfer.CUDA_CORE, flashinfer.TENSOR_CORE, flashinfer.BATCH)
KERNELS = ("fa3", "fa2", *FLASHINFER_KERNELS, TORCH_CPU)
MODELS = ("tile", "mean", "sum", "skew")

_ALPHA = "skew_alpha"
# Coefficients that no kernel has measured elsewhere are told for the shape of Llama-3.1-8B.
_HEADS, _KV_HEADS, _HEAD_DIM = 32, 8, 128


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
    """Build a kernel's attention model from its coefficients, as the fits below return them.

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
    if kv_heads < 1 or heads % kv_heads:
        raise InputError(f"{heads} query heads are not a multiple of {kv_heads} KV heads")
    given = Fields(coefficients, f"{kernel} coefficients")
    tile = _tile(kernel, given, Shape(heads, kv_heads, head_dim, sms), warm_l2)
    if model == "mean":
        return MeanAttention(tile)
    if model == "sum":
        return sum_attention(tile)
    return SkewAttention(tile, given.number(_ALPHA)) if model == "skew" else tile


@dataclass(frozen=True, slots=True)
class FitReport:
    """Errors of a fit on points that it has not seen, by kind of batch (``decode``, ``prefill``, ...)."""

    errors: Mapping[str, Errors | SkewErrors]

    def to_json(self) -> dict[str, dict[str, float]]:
        """As plain numbers."""
        return {kind: errors.to_json() for kind, errors in self.errors.items()}


def fit_attention(
    kernel: str, decode_points: UniformPoints, prefill_points: UniformPoints, gpu: GPU
) -> tuple[dict[str, Any], FitReport]:
    """Fit ``fa3`` to uniform measurements over many shapes; a fifth is held out for the report.

    Points that beat the GPU's roofline are left out of both. Decode's errors are on points above 20 µs, below which
    launches hide what is modelled.

    Raises InputError for a kernel that has no fit to such points.
    """
    if kernel != "fa3":
        raise InputError(f"no fit of attention kernel '{kernel}' to uniform points: accepted is fa3")
    from l4sim.cost.attention.fa3_fit import fit_fa3

    c, errors = fit_fa3(decode_points, prefill_points, gpu)
    tile = fa3_attention(Shape(_HEADS, _KV_HEADS, _HEAD_DIM, gpu.sms), c)
    return {**asdict(c), _ALPHA: skew_alpha(tile)}, FitReport(errors)


def fit_profiled_attention(
    kernel: str,
    points: MixedPoints,
    skewed: SkewPoints | None,
    gpu: GPU,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
) -> tuple[dict[str, Any], FitReport]:
    """Fit ``fa2`` to one shape's profile of uniform, mixed and maybe skewed batches; a fifth of each is held out.

    Raises InputError for a kernel that has no fit to such points, or if no batch is of decodes alone.
    """
    if kernel != "fa2":
        raise InputError(f"no fit of attention kernel '{kernel}' to mixed points: accepted is fa2")
    from l4sim.cost.attention.fa2_fit import fit_fa2

    c, alpha, errors = fit_fa2(points, skewed, gpu, Shape(heads, kv_heads, head_dim, gpu.sms))
    return {**asdict(c), _ALPHA: alpha}, FitReport(errors)


def fit_batch_attention(kernel: str, points: Sequence[BatchPoint], gpu: GPU) -> tuple[dict[str, Any], FitReport]:
    """Fit one of FlashInfer's kernels or ``torch-cpu`` to batches of any lengths; a fifth of each kind is held out.

    Raises InputError for a kernel that has no fit to such points, or too few points of it.
    """
    accepted = (*FLASHINFER_KERNELS, TORCH_CPU)
    if kernel not in accepted:
        raise InputError(
            f"no fit of attention kernel '{kernel}' to measured batches: accepted are {', '.join(accepted)}"
        )
    from l4sim.cost.attention.batch_fit import fit_batches

    coefficients, errors = fit_batches(kernel, points, gpu)
    return coefficients, FitReport(errors)


def assumed_attention(kernel: str, gpu: GPU) -> dict[str, Any]:
    """Coefficients of a FlashInfer kernel on a GPU where nothing was measured: fractions of the datasheet's peaks.

    Raises InputError for another kernel.
    """
    if kernel not in FLASHINFER_KERNELS:
        raise InputError(f"no assumed figures for kernel '{kernel}': accepted are {', '.join(FLASHINFER_KERNELS)}")
    c = flashinfer.assumed(gpu)
    tile = flashinfer_attention(kernel, Shape(_HEADS, _KV_HEADS, _HEAD_DIM, gpu.sms), c)
    return {**asdict(c), _ALPHA: skew_alpha(tile)}


def _tile(kernel: str, given: Fields, shape: Shape, warm_l2: bool) -> AttentionModel:
    if kernel == "fa3":
        c = FA3Coefficients(**_values(FA3Coefficients, given, counts=("max_splits",)))
        return fa3_attention(shape, c, warm_l2=warm_l2)
    if kernel == TORCH_CPU:
        return TorchCpuAttention(shape, TorchCpuCoefficients(**_values(TorchCpuCoefficients, given)))
    if kernel == "fa2":
        return fa2_attention(shape, FA2Coefficients(**_values(FA2Coefficients, given, counts=("blocks_per_sm",))))
    return flashinfer_attention(kernel, shape, FlashInferCoefficients(**_values(FlashInferCoefficients, given)))


def _values(kind: type, given: Fields, counts: tuple[str, ...] = ()) -> dict[str, Any]:
    """A coefficient dataclass's fields; rates, sharpness and the like must be above 0.

    One with a default may be missing: profiles are older than it.
    """
    names = [field.name for field in fields(kind)]
    given.only(*names, _ALPHA)
    names = [field.name for field in fields(kind) if field.default is MISSING or field.name in given.values]
    values: dict[str, Any] = {name: given.count(name) for name in counts}
    for name in names:
        if name not in counts:
            divides = name.endswith(("per_s", "flops", "alone", "sharpness", "drift_waves", "drift_bytes"))
            values[name] = given.positive(name) if divides else given.number(name)
    return values
