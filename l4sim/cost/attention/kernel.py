"""What an attention kernel is to a run: its coefficients, with units and bounds, and the time model made of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

from msgspec import Meta

from l4sim.cost.attention.shape import Shape
from l4sim.cost.model import AttentionModel

C = TypeVar("C")

_FINITE = sys.float_info.max
_UNIT = "unit"

BYTES_PER_S = "bytes/s"


def _from_zero(unit: str) -> Meta:
    return Meta(ge=0, le=_FINITE, extra={_UNIT: unit})


def _above_zero(unit: str) -> Meta:
    return Meta(gt=0, le=_FINITE, extra={_UNIT: unit})


# Every coefficient's type gives its unit and what values are possible: what others are divided by is above 0.
Seconds = Annotated[float, _from_zero("s")]
Bytes = Annotated[float, _from_zero("bytes")]
PositiveBytes = Annotated[float, _above_zero("bytes")]
BytesPerSecond = Annotated[float, _above_zero(BYTES_PER_S)]
FlopPerSecond = Annotated[float, _above_zero("FLOP/s")]
Fraction = Annotated[float, _from_zero("1")]
PositiveFraction = Annotated[float, _above_zero("1")]
NormOrder = Annotated[float, _above_zero("1")]
Waves = Annotated[float, _above_zero("waves")]
TileCount = Annotated[float, _from_zero("tiles")]
WholeNumber = Annotated[int, Meta(ge=1, extra={_UNIT: "1"})]


@dataclass(frozen=True, slots=True)
class Kernel(Generic[C]):
    """An attention kernel. `l4sim.calibration.kernels` has the ways to find its coefficients, by the same name."""

    name: str
    """As profiles and the command line call it."""
    coefficients: type[C]
    """A frozen dataclass of the types above; fields with a default may be missing in a profile that is older."""
    build: Callable[[Shape, C], AttentionModel]
    """The time model of one tensor-parallel rank. Raises InputError for a shape that the kernel cannot run."""
    in_graphs: bool = True
    """Whether engines run it in CUDA graphs."""


def units(coefficients: type[Any]) -> Mapping[str, str]:
    """The unit of every coefficient that is one number, by name."""
    annotations = get_type_hints(coefficients, include_extras=True)
    return {
        name: hint.__metadata__[0].extra[_UNIT] for name, hint in annotations.items() if hasattr(hint, "__metadata__")
    }
