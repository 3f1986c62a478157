"""Distributions and segments as text."""

from __future__ import annotations

import pytest

from l4sim.errors import InputError
from l4sim.workload.synth.lengths import (
    Fixed,
    Lengths,
    Lognormal,
    LognormalPareto,
    Mixture,
    QuantileTable,
    Truncated,
    Zipf,
)
from l4sim.workload.synth.parse import parse_lengths, parse_segments


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("fixed:tokens=128", Fixed(128)),
        ("lognormal:mu=6,sigma=1.1", Lognormal(6, 1.1)),
        ("lognormal:sigma=1.1,mu=6,max=8192", Truncated(Lognormal(6, 1.1), 8192)),
        (
            "lognormal-pareto:mu=6,sigma=1,tail_share=0.1,alpha=1.5",
            LognormalPareto(6, 1, tail_share=0.1, alpha=1.5),
        ),
        ("zipf:exponent=1.2,max_tokens=4096", Zipf(1.2, 4096)),
        ("quantiles:0=1,0.5=300,1=1e+3", QuantileTable((0, 0.5, 1), (1, 300, 1000))),
        (
            "0.7*lognormal:mu=1e+0,sigma=1 + 0.3*fixed:tokens=9,max=10",
            Mixture((Lognormal(1, 1), Truncated(Fixed(9), 10)), (0.7, 0.3)),
        ),
    ],
)
def test_a_distribution_is_read_from_text(text: str, lengths: Lengths) -> None:
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "normal:mu=1",
            r"distribution 'normal' .* accepted: fixed, lognormal, lognormal-pareto, zipf, uniform, quantiles",
        ),
        ("lognormal:mu=1", r"lognormal takes mu, sigma \(and max\), not mu"),
        ("lognormal:mu=1,sigma=1,alpha=2", r"not mu, sigma, alpha"),
        ("lognormal", r"not nothing"),
        ("lognormal:mu=1,mu=2,sigma=1", r"'mu' is given twice"),
        ("lognormal:mu=one,sigma=1", r"mu in .* must be a number, not 'one'"),
        ("lognormal:mu,sigma=1", r"'mu' in .* must be KEY=VALUE"),
        ("quantiles:low=1,1=5", r"the probability 'low' .* must be a number"),
        ("x*fixed:tokens=1", r"the weight in .* must be a number, not 'x'"),
        ("0.5*fixed:tokens=1+fixed:tokens=2", r"every part of the mixture .* needs a weight"),
        ("fixed:tokens=1+fixed:tokens=2", r"every part of the mixture .* needs a weight"),
        ("lognormal:mu=1,sigma=-1", r"sigma must be a number > 0, not -1"),
    ],
)
def test_text_that_is_no_distribution_is_refused_with_the_part_at_fault(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_lengths(text)


def test_segments_are_seconds_and_rates() -> None:
    assert parse_segments("600:5,60:0.5") == ((600.0, 5.0), (60.0, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [("600", "'600' must be SECONDS:RATE"), ("a:5", "the seconds in 'a:5'"), ("600:5,60:", "the rate in '60:'")],
)
def test_text_that_is_no_segment_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_segments(text)
