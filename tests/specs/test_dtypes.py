"""Number formats: known by name, each with its bytes, in one place."""

import pytest

from l4sim.errors import InputError
from l4sim.specs.dtypes import BF16_BYTES, DTYPES, Dtypes, size_bytes


def test_half_precision_takes_two_bytes() -> None:
    assert [size_bytes(1000, dtype) for dtype in DTYPES] == [2000, 2000]
    assert BF16_BYTES == 2


@pytest.mark.parametrize("what", ["weights", "kv", "activations"])
def test_a_format_that_is_not_known_is_refused_by_name(what: str) -> None:
    with pytest.raises(InputError, match="no number format 'int3': accepted are bfloat16, float16"):
        Dtypes(**{what: "int3"})
