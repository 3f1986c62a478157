"""How one attention kernel's coefficients come about: the other half of `l4sim.cost.attention.kernel.Kernel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

from l4sim.calibration.fits.errors import FitReport
from l4sim.calibration.measured.operators import InIterations, Iterations
from l4sim.cost.attention import SKEW_ALPHA
from l4sim.cost.attention.kernel import BYTES_PER_S, units
from l4sim.cost.attention.shape import Shape
from l4sim.specs.gpu import GPU

Coefficients = Mapping[str, Any]
"""A kernel's coefficients and ``skew_alpha``, as ``profile.json`` has them."""


class Points(Protocol):
    """Measurements that some kernel can be fitted to."""

    kind: ClassVar[str]
    """What people call them."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The ways to find a kernel's coefficients, those that there are."""

    fits: Mapping[type, Callable[[Any, GPU], tuple[Coefficients, FitReport]]] = field(default_factory=dict)
    """Fits by the class of points, each with its errors on points that it has not seen."""
    assume: Callable[[GPU], Coefficients] | None = None
    """Coefficients on a GPU where nothing was measured, from its datasheet."""
    scale: Callable[[Coefficients, GPU, GPU], Coefficients] | None = None
    """Coefficients measured on the first GPU, as they would be on the second."""
    correct: Callable[[Sequence[Iterations], Coefficients], InIterations | None] | None = None
    """Coefficients from whole iterations, and the host's part of them, where attention alone does not show them; the
    result is None where there are too few iterations."""


def reference_shape(gpu: GPU) -> Shape:
    """Llama-3.1-8B's attention, for which ``skew_alpha`` is given where no one shape was measured."""
    return Shape(heads=32, kv_heads=8, head_dim=128, sms=gpu.sms)


def as_json(coefficients: Any, skew_alpha: float) -> dict[str, Any]:
    """A kernel's coefficients as ``profile.json`` has them."""
    return {**asdict(coefficients), SKEW_ALPHA: skew_alpha}


def with_memory_of(target: GPU, measured: GPU, coefficients: Coefficients, kind: type[Any]) -> dict[str, Any]:
    """Coefficients of dataclass ``kind`` with every rate of memory in proportion to the GPU's bandwidth."""
    faster = target.memory_bytes_per_s / measured.memory_bytes_per_s
    unit = units(kind)
    return {name: value * faster if unit.get(name) == BYTES_PER_S else value for name, value in coefficients.items()}
