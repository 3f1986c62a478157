"""Length distributions: quantiles and CDFs against hand-worked values and against each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.errors import InputError
from l4sim.workload.synth.lengths import (
    Fixed,
    Lengths,
    Lognormal,
    LognormalPareto,
    Mixture,
    QuantileTable,
    Truncated,
    Uniform,
    Zipf,
)

CONTINUOUS: list[Lengths] = [
    Lognormal(6.0, 1.2),
    LognormalPareto(6.0, 1.2, tail_share=0.1, alpha=1.5),
    QuantileTable((0.0, 0.5, 0.9, 1.0), (1.0, 100.0, 2000.0, 8000.0)),
    Mixture((Lognormal(5.0, 0.5), Lognormal(9.0, 0.8)), (3.0, 1.0)),
    Truncated(Lognormal(6.0, 1.2), 2000.0),
    Truncated(Mixture((Lognormal(5.0, 0.5), Lognormal(9.0, 0.8)), (3.0, 1.0)), 20_000.0),
]
DISCRETE: list[Lengths] = [Fixed(128), Uniform(3, 9), Zipf(1.1, 500), Mixture((Fixed(10), Fixed(1000)), (0.25, 0.75))]


def at(function: Callable[[np.ndarray], np.ndarray], *values: float) -> list[float]:
    return function(np.array(values)).tolist()


@pytest.mark.slow
@given(st.sampled_from(CONTINUOUS), st.floats(1e-6, 1 - 1e-6))
def test_the_cdf_undoes_the_quantile(lengths: Lengths, u: float) -> None:
    assert at(lengths.cdf, *at(lengths.quantile, u)) == pytest.approx([u], abs=1e-9)


@pytest.mark.slow
@given(st.sampled_from(CONTINUOUS + DISCRETE), st.floats(1e-9, 1 - 1e-9), st.floats(1e-9, 1 - 1e-9))
def test_quantiles_never_descend(lengths: Lengths, u: float, v: float) -> None:
    low, high = at(lengths.quantile, min(u, v), max(u, v))
    assert low <= high


@pytest.mark.slow
@given(st.sampled_from(DISCRETE), st.floats(1e-6, 1 - 1e-6))
def test_a_quantile_is_the_least_length_whose_cdf_reaches_u(lengths: Lengths, u: float) -> None:
    (tokens,) = at(lengths.quantile, u)
    assert at(lengths.cdf, tokens)[0] >= u
    assert at(lengths.cdf, tokens - 0.5)[0] <= u


def test_lognormal_quantiles_are_exp_of_normal_quantiles() -> None:
    one_sigma = 0.8413447460685429
    assert at(Lognormal(2.0, 0.5).quantile, 0.5, one_sigma) == pytest.approx([math.exp(2.0), math.exp(2.5)])
    assert at(Lognormal(2.0, 0.5).cdf, 0.0, math.exp(2.0)) == [0.0, 0.5]


def test_a_pareto_tail_continues_the_body_from_its_threshold() -> None:
    lengths = LognormalPareto(5.0, 1.0, tail_share=0.5, alpha=2.0)
    threshold = math.exp(5.0)
    assert lengths.tail_tokens == pytest.approx(threshold)
    # In the tail P(X > x) = 1/2 (threshold / x)²: a quarter of all lies beyond √2 thresholds, 1/8 beyond twice.
    assert at(lengths.quantile, 0.5, 0.75, 0.875) == pytest.approx([threshold, math.sqrt(2) * threshold, 2 * threshold])
    assert at(lengths.cdf, 2 * threshold) == pytest.approx([0.875])
    assert at(lengths.quantile, 0.2) == at(Lognormal(5.0, 1.0).quantile, 0.2)


def test_zipf_of_exponent_one_over_three_lengths() -> None:
    # Weights 1, 1/2, 1/3 of a sum of 11/6: cumulated 6/11, 9/11, 1.
    zipf = Zipf(1.0, 3)
    assert at(zipf.quantile, 0.5, 0.55, 0.81, 0.82, 0.999) == [1, 2, 2, 3, 3]
    assert at(zipf.cdf, 0.5, 1, 2.9, 3, 100) == pytest.approx([0, 6 / 11, 9 / 11, 1, 1])


def test_a_quantile_table_is_linear_between_its_points_and_may_hold_a_flat_step() -> None:
    table = QuantileTable((0.0, 0.4, 0.6, 1.0), (1.0, 10.0, 10.0, 50.0))
    assert at(table.quantile, 0.2, 0.5, 0.8) == pytest.approx([5.5, 10.0, 30.0])
    assert at(table.cdf, 0.9, 5.5, 10.0, 30.0, 50.0, 99.0) == pytest.approx([0.0, 0.2, 0.6, 0.8, 1.0, 1.0])


def test_a_mixture_of_fixed_lengths_jumps_where_the_weights_say() -> None:
    mixture = Mixture((Fixed(10), Fixed(1000)), (1.0, 3.0))
    assert at(mixture.quantile, 0.1, 0.249, 0.251, 0.9) == pytest.approx([10, 10, 1000, 1000])
    assert at(mixture.cdf, 9, 10, 999, 1000) == [0, 0.25, 0.25, 1]


def test_truncation_scales_the_cdf_by_what_is_kept() -> None:
    # Kept is the lower half, so the truncated median is the quarter quantile.
    median = math.exp(4.0)
    truncated = Truncated(Lognormal(4.0, 1.0), median)
    assert at(truncated.quantile, 0.5) == pytest.approx(at(Lognormal(4.0, 1.0).quantile, 0.25))
    assert at(truncated.cdf, median, 2 * median) == pytest.approx([1.0, 1.0])
    assert at(truncated.quantile, 1.0)[0] <= median


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(0), "tokens must be >= 1"),
        (lambda: Lognormal(math.nan, 1.0), "mu must be a finite number"),
        (lambda: Lognormal(1.0, 0.0), "sigma must be a number > 0"),
        (lambda: LognormalPareto(1.0, 1.0, 0.0, 1.0), "tail_share must be in"),
        (lambda: LognormalPareto(1.0, -1.0, 0.5, 1.0), "sigma must be a number > 0"),
        (lambda: LognormalPareto(1.0, 1.0, 0.5, 0.0), "alpha must be a number > 0"),
        (lambda: Zipf(-1.0, 10), "exponent must be a number >= 0"),
        (lambda: Zipf(1.0, 0), "max_tokens must be an integer"),
        (lambda: QuantileTable((0.0, 1.0), (1.0,)), "2 probabilities for 1 token counts"),
        (lambda: QuantileTable((0.1, 1.0), (1.0, 2.0)), "ascend from 0 to 1"),
        (lambda: QuantileTable((0.0, 0.5, 0.5, 1.0), (1.0, 2.0, 3.0, 4.0)), "ascend from 0 to 1"),
        (lambda: QuantileTable((0.0, 1.0), (5.0, 2.0)), "must not descend"),
        (lambda: Mixture((Fixed(1),), (1.0, 2.0)), "1 distributions for 2 weights"),
        (lambda: Mixture((Fixed(1),), (0.0,)), "weights must be numbers > 0"),
        (lambda: Truncated(Fixed(10), 5), "no request has at most"),
        (lambda: Truncated(Fixed(10), 0), "max must be >= 1"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_uniform_lengths_are_as_likely_at_the_ends_as_between() -> None:
    u = (np.arange(300) + 0.5) / 300
    tokens, counts = np.unique(Uniform(3, 5).quantile(u), return_counts=True)
    assert (tokens.tolist(), counts.tolist()) == ([3, 4, 5], [100] * 3)
    assert at(Uniform(3, 5).cdf, 2.9, 3, 4.5, 5) == pytest.approx([0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize(
    ("low", "high", "wrong"), [(0, 3, "low must be"), (3, 4.5, "high must"), (5, 4, "at most high")]
)
def test_uniform_lengths_are_whole_and_in_order(low: float, high: float, wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        Uniform(low, high)
