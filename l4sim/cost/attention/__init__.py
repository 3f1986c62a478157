"""Seconds of one layer's attention, per kernel: decodes, prefill chunks and batches of both.

A model sees the batch as it is (``tile``: the kernel's own split over the GPU) or coarser, for comparison: ``mean``,
``sum`` and ``skew``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from l4sim.cost.attention import fa2, fa3, flashinfer, torch_cpu, trtllm
from l4sim.cost.attention.coarse import MeanAttention, SkewAttention, sum_attention
from l4sim.cost.attention.kernel import Fraction, Kernel
from l4sim.cost.attention.shape import Shape
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError
from l4sim.json_files import checked

KERNELS: Mapping[str, Kernel[Any]] = {
    kernel.name: kernel for kernel in (fa3.KERNEL, fa2.KERNEL, *flashinfer.KERNELS, torch_cpu.KERNEL, trtllm.KERNEL)
}
"""All attention kernels by name."""

SKEW_ALPHA = "skew_alpha"
"""The constant of ``skew``, which stands beside every kernel's own coefficients."""


@dataclass(frozen=True, slots=True)
class _Skew:
    skew_alpha: Fraction


def _skew(tile: AttentionModel, coefficients: Mapping[str, Any], where: str) -> AttentionModel:
    given = {name: value for name, value in coefficients.items() if name == SKEW_ALPHA}
    return SkewAttention(tile, checked(given, _Skew, where).skew_alpha)


# Each makes its model of the kernel's own, of all coefficients and of where they stand.
_MODELS: Mapping[str, Callable[[AttentionModel, Mapping[str, Any], str], AttentionModel]] = {
    "tile": lambda tile, _coefficients, _where: tile,
    "mean": lambda tile, _coefficients, _where: MeanAttention(tile),
    "sum": lambda tile, _coefficients, _where: sum_attention(tile),
    "skew": _skew,
}
MODELS = tuple(_MODELS)


def build_attention(
    kernel: str,
    coefficients: Mapping[str, Any],
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    sms: int,
    graph_requests: tuple[int, ...] = (),
    graph_tokens: int = 1,
    model: str = "tile",
    anchor: Callable[[AttentionModel], AttentionModel] | None = None,
) -> AttentionModel:
    """Build a kernel's attention model from its coefficients, as a profile has them.

    ``heads`` and ``kv_heads`` are those of one tensor-parallel rank; ``model`` is ``tile``, ``mean``, ``sum`` or
    ``skew``. ``graph_requests`` and ``graph_tokens`` are the decode batches that are captured as CUDA graphs, if any,
    and the context length that they are captured for. ``anchor`` holds the kernel's own split to something measured,
    before anything coarser is made of it. No keys and values are taken to be in L2, since an engine streams its weights
    through it between two calls.

    Raises:
        InputError: an unknown kernel, model or coefficient; a missing or impossible coefficient; query heads that are
            not a multiple of the KV heads, or that the kernel cannot run.
    """
    if model not in _MODELS:
        raise InputError(f"no attention model '{model}': accepted are {', '.join(MODELS)}")
    shape = Shape(heads, kv_heads, head_dim, sms, graph_requests, graph_tokens)
    tile = tile_attention(kernel, coefficients, shape)
    return _MODELS[model](tile if anchor is None else anchor(tile), coefficients, f"{kernel} coefficients")


def tile_attention(kernel: str, coefficients: Mapping[str, Any], shape: Shape) -> AttentionModel:
    """A kernel's own split of a batch, as ``tile`` sees it.

    Raises:
        InputError: as ``build_attention``.
    """
    if kernel not in KERNELS:
        raise InputError(f"no attention kernel '{kernel}': accepted are {', '.join(KERNELS)}")
    if shape.kv_heads < 1 or shape.heads % shape.kv_heads:
        raise InputError(f"{shape.heads} query heads are not a multiple of {shape.kv_heads} KV heads")
    return KERNELS[kernel].build(shape, read_coefficients(kernel, coefficients))


def read_coefficients(kernel: str, coefficients: Mapping[str, Any]) -> Any:
    """A known kernel's coefficients as its dataclass.

    Raises:
        InputError: an unknown, missing or impossible coefficient.
    """
    own = {name: value for name, value in coefficients.items() if name != SKEW_ALPHA}
    return checked(own, KERNELS[kernel].coefficients, f"{kernel} coefficients")
