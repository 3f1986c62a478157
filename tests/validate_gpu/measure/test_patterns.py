"""Batches of equal total tokens: worked by hand, and held to their promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from validate_gpu.measure.patterns import PATTERNS, spread


def test_uniform_batches_are_even() -> None:
    assert spread("uniform", 4, 4096, longest=8192) == (1024,) * 4


def test_one_long_request_has_half_of_the_tokens() -> None:
    lengths = spread("one-long", 32, 131072, longest=131072)
    assert lengths is not None
    assert max(lengths) == 65536
    assert sorted(lengths)[-2] == pytest.approx(65536 / 31, abs=1)


def test_bimodal_batches_have_one_long_request_in_eight() -> None:
    lengths = spread("bimodal", 16, 46000, longest=131072)
    assert lengths is not None
    # 14 short ones and 2 that are 16 times as long: 46 shares of 1,000.
    assert sorted(lengths) == [1000] * 14 + [16000] * 2
    assert list(lengths) != sorted(lengths)


@pytest.mark.slow
@given(st.sampled_from(PATTERNS), st.integers(1, 600), st.integers(1, 1 << 20))
def test_every_pattern_keeps_the_total(pattern: str, requests: int, total: int) -> None:
    lengths = spread(pattern, requests, total, longest=131072)
    if lengths is not None:
        assert (len(lengths), sum(lengths)) == (requests, total)
        assert min(lengths) >= 1
        assert max(lengths) <= 131072


def test_scale_is_all_that_differs_between_totals() -> None:
    small, large = (spread("lognormal", 8, total, longest=1 << 20) for total in (10**4, 10**6))
    assert small is not None
    assert large is not None
    assert [length / 10**4 for length in small] == pytest.approx([length / 10**6 for length in large], abs=2e-4)


@pytest.mark.parametrize(
    ("pattern", "requests", "total"),
    [("one-long", 2, 300_000), ("uniform", 1, 140_000), ("one-long", 1, 4096), ("bimodal", 7, 4096), ("uniform", 9, 8)],
)
def test_what_cannot_be_is_none(pattern: str, requests: int, total: int) -> None:
    assert spread(pattern, requests, total, longest=131072) is None
