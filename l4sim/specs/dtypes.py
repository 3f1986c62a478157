"""Number formats, and the bytes that numbers take in them."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from l4sim.errors import InputError

# What l4sim.cost charges is fitted to 16-bit formats (BF16_BYTES): another size needs its own coefficients there.
_ELEMENT_BYTES = {"bfloat16": 2, "float16": 2}

DTYPES = tuple(_ELEMENT_BYTES)
"""Names of the formats, as a ``config.json`` has them."""


def size_bytes(elements: int, dtype: str) -> int:
    """Bytes that so many elements take."""
    return elements * _ELEMENT_BYTES[dtype]


BF16_BYTES = size_bytes(1, "bfloat16")
"""Of one element: for what was measured, or fitted to measurements, in bf16 alone."""


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The formats that a layer works in.

    Raises:
        InputError: a name that is none of ``DTYPES``.
    """

    weights: str = "bfloat16"
    kv: str = "bfloat16"
    activations: str = "bfloat16"

    def __post_init__(self) -> None:
        for dtype in astuple(self):
            check_dtype(dtype)


def check_dtype(dtype: str) -> None:
    """Check that a format is known.

    Raises:
        InputError: it is not.
    """
    if dtype not in DTYPES:
        raise InputError(f"no number format {dtype!r}: accepted are {', '.join(DTYPES)}")
