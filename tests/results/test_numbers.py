"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from l4sim.results.numbers import change, precise


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.012345, "0.0123"),
        (4.561, "4.56"),
        (45.61, "45.6"),
        (456.1, "456"),
        (12_345, "12,300"),
        (0, "0"),
        (0.9996, "1.00"),
        (99.96, "100"),
        (math.nan, "–"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert precise(value) == text


@pytest.mark.parametrize(
    ("value", "base", "text"),
    [(1.12, 1, "+12 %"), (0.996, 1, "-0.4 %"), (1.0001, 1, "±0 %"), (12, 1, "x12.0"), (1, 0, "–"), (math.nan, 1, "–")],
)
def test_changes_are_written_with_their_sign(value, base, text):
    assert change(value, base) == text
