"""Number formats: known by name, each with its bytes, in one place."""

import pytest

from l4sim.errors import InputError
from l4sim.specs.dtypes import BF16_BYTES, DTYPES, Dtypes, size_bytes


@pytest.mark.parametrize(
    ("dtype", "taken"),
    [
        ("float32", 4 * 16_384),
        ("fp8", 16_384),
        # A float32 for every 128 x 128, a byte for every 16 or 32, two for every 128.
        ("fp8-block128", 16_384 + 4),
        ("mxfp8", 16_384 + 512),
        ("nvfp4", 8_192 + 1_024),
        ("mxfp4", 8_192 + 512),
        ("int8", 16_384),
        ("int4", 8_192),
        ("int4-g128", 8_192 + 2 * 128),
        ("int4-g32", 8_192 + 2 * 512),
    ],
)
def test_quantised_numbers_take_their_bits_and_their_share_of_a_scale(dtype: str, taken: int) -> None:
    assert size_bytes(16_384, dtype) == taken


def test_a_byte_that_is_begun_is_taken() -> None:
    assert [size_bytes(elements, "int4") for elements in (0, 1, 2, 3)] == [0, 1, 1, 2]


def test_parts_may_have_a_format_of_their_own() -> None:
    dtypes = Dtypes(parts=(("up", "nvfp4"),))
    assert (dtypes.of("up"), dtypes.of("down")) == ("nvfp4", "bfloat16")
    with pytest.raises(InputError, match="no number format 'int3'"):
        Dtypes(parts=(("up", "int3"),))


def test_activations_are_in_16_bits() -> None:
    with pytest.raises(InputError, match="no number format 'fp8': accepted are bfloat16, float16"):
        Dtypes(activations="fp8")


def test_half_precision_takes_two_bytes() -> None:
    assert [size_bytes(1000, dtype) for dtype in DTYPES] == [2000, 2000]
    assert BF16_BYTES == 2


@pytest.mark.parametrize("what", ["weights", "kv", "activations"])
def test_a_format_that_is_not_known_is_refused_by_name(what: str) -> None:
    with pytest.raises(InputError, match="no number format 'int3': accepted are bfloat16, float16"):
        Dtypes(**{what: "int3"})
