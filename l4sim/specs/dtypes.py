"""Number formats, and the bytes that numbers take in them."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.errors import InputError


@dataclass(frozen=True, slots=True)
class _Format:
    """Bits of one number, and of the scale that a block of numbers shares."""

    bits: int
    scale_bits: int = 0
    block: int = 1


# Sources: OCP Microscaling Formats 1.0 (mx...), NVIDIA's NVFP4 and DeepSeek-V3's technical report (fp8-block128); the
# scales of int4 groups are bf16, zero points (AWQ's) left out. One scale for a whole tensor or row is left out too.
_FORMATS = {
    "bfloat16": _Format(16),
    "float16": _Format(16),
    "float32": _Format(32),
    "fp8": _Format(8),
    "fp8-block128": _Format(8, scale_bits=32, block=128 * 128),
    "fp8-block32": _Format(8, scale_bits=8, block=32 * 32),
    "mxfp8": _Format(8, scale_bits=8, block=32),
    "nvfp4": _Format(4, scale_bits=8, block=16),
    "mxfp4": _Format(4, scale_bits=8, block=32),
    "int8": _Format(8),
    "int4": _Format(4),
    "int4-g32": _Format(4, scale_bits=16, block=32),
    "int4-g64": _Format(4, scale_bits=16, block=64),
    "int4-g128": _Format(4, scale_bits=16, block=128),
}

DTYPES = ("bfloat16", "float16")
"""Names of the formats that hidden states may have, as a ``config.json`` has them. What `l4sim.cost` charges is fitted
to these: another size needs its own coefficients there."""

FORMATS = tuple(_FORMATS)
"""Names of the formats that weights and KV may have: the number's, and over how many a scale is shared."""


def size_bytes(elements: int, dtype: str) -> int:
    """Bytes that so many elements take, scales included, rounded up."""
    form = _FORMATS[dtype]
    return -(-elements * (form.bits * form.block + form.scale_bits) // (8 * form.block))


BF16_BYTES = size_bytes(1, "bfloat16")
"""Of one element: for what was measured, or fitted to measurements, in bf16 alone."""


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The formats that a layer works in.

    Raises:
        InputError: a name that is none of ``FORMATS``, or none of ``DTYPES`` for activations.
    """

    weights: str = "bfloat16"
    """Of all weights but ``parts``."""
    kv: str = "bfloat16"
    activations: str = "bfloat16"
    parts: tuple[tuple[str, str], ...] = ()
    """Parts of the layer (`l4sim.specs.matrix.Matrix.part`) whose weights are in another format, with that format."""

    def __post_init__(self) -> None:
        check_dtype(self.activations)
        for dtype in (self.weights, self.kv, *(dtype for _, dtype in self.parts)):
            check_dtype(dtype, FORMATS)

    def of(self, part: str) -> str:
        """The format of one part's weights."""
        return dict(self.parts).get(part, self.weights)


def check_dtype(dtype: str, known: tuple[str, ...] = DTYPES) -> None:
    """Check that a format is among the known ones.

    Raises:
        InputError: it is not.
    """
    if dtype not in known:
        raise InputError(f"no number format {dtype!r}: accepted are {', '.join(known)}")
