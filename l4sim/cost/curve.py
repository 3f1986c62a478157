"""Measured curves: seconds over a size, linear between few knots."""

from __future__ import annotations

import numpy as np
from msgspec import Struct, field
from numpy.typing import ArrayLike, NDArray

from l4sim.errors import InputError
from l4sim.json_files import NonNegatives, refuse_unsorted

FloatArray = NDArray[np.float64]


class Curve(Struct, frozen=True):
    """Seconds over a size: constant below the first knot, proportional beyond the last."""

    sizes: NonNegatives
    """Ascending."""
    seconds: NonNegatives

    def __post_init__(self) -> None:
        name = self.__struct_encode_fields__[0]
        refuse_unsorted(name, self.sizes)
        if len(self.sizes) != len(self.seconds):
            raise InputError(f"{len(self.seconds)} seconds for {len(self.sizes)} {name}")

    def at(self, sizes: ArrayLike) -> FloatArray:
        """Seconds at so many sizes, of their shape."""
        size = np.asarray(sizes, dtype=np.float64)
        within = np.interp(size, self.sizes, self.seconds)
        return np.asarray(np.where(size > self.sizes[-1], within * size / self.sizes[-1], within))


class OverTokens(Curve, frozen=True):
    """Seconds over the tokens of a batch. In JSON the sizes go by what they are, as in the curves below."""

    sizes: NonNegatives = field(name="tokens")


class OverSequences(Curve, frozen=True):
    """Seconds over sampled sequences."""

    sizes: NonNegatives = field(name="sequences")


class OverBytes(Curve, frozen=True):
    """Seconds over the bytes of a message."""

    sizes: NonNegatives = field(name="size_bytes")
