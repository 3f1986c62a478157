"""Joint lengths: the copula's correlation, the bootstrap's rows, whole tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from l4sim.errors import InputError
from l4sim.workload.synth.joint import Bootstrap, Coupled
from l4sim.workload.synth.lengths import Fixed, Lognormal, LognormalPareto, Zipf

N = 20_000


@pytest.mark.parametrize("spearman", [-0.9, -0.38, 0.0, 0.5, 0.95])
def test_drawn_lengths_have_the_given_spearman_correlation(spearman: float) -> None:
    # Large medians, so that rounding to whole tokens makes next to no ties.
    prompt, output = Coupled(Lognormal(11.0, 1.0), Lognormal(12.0, 0.5), spearman).draw(np.random.default_rng(3), N)
    measured = stats.spearmanr(prompt, output).statistic
    # Bonett and Wright 2000: the standard error of Fisher's z of a rank correlation.
    tolerance = 5 * math.sqrt((1 + spearman**2 / 2) / (N - 3))
    assert abs(math.atanh(measured) - math.atanh(spearman)) <= tolerance


@pytest.mark.parametrize("spearman", [-1.0, 1.0])
def test_a_full_correlation_orders_both_lengths_alike_or_oppositely(spearman: float) -> None:
    prompt, output = Coupled(Lognormal(11.0, 1.0), Lognormal(12.0, 0.5), spearman).draw(np.random.default_rng(3), 500)
    assert (np.diff(spearman * output[np.argsort(prompt)]) >= 0).all()


def test_coupling_leaves_the_marginals_as_they_are() -> None:
    prompt, output = Coupled(Lognormal(11.0, 1.0), Lognormal(12.0, 0.5), 0.7).draw(np.random.default_rng(4), N)
    assert stats.kstest(prompt, stats.lognorm(1.0, scale=math.exp(11.0)).cdf).pvalue > 1e-3
    assert stats.kstest(output, stats.lognorm(0.5, scale=math.exp(12.0)).cdf).pvalue > 1e-3


def test_lengths_are_whole_and_at_least_one_token() -> None:
    prompt, output = Coupled(Lognormal(-3.0, 0.1), Zipf(2.0, 50)).draw(np.random.default_rng(0), 1000)
    assert prompt.dtype == output.dtype == np.int64
    assert (prompt == 1).all()
    assert output.min() >= 1
    assert output.max() <= 50


def test_a_tail_that_leaves_the_range_of_a_trace_is_refused() -> None:
    lengths = Coupled(LognormalPareto(8.0, 1.0, tail_share=0.5, alpha=0.05), Fixed(1))
    with pytest.raises(InputError, match="accepted are at most 100000000: truncate it"):
        lengths.draw(np.random.default_rng(0), 1000)


def test_a_correlation_beyond_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"must be from -1 to 1, not 1\.2"):
        Coupled(Fixed(1), Fixed(1), 1.2)


def test_the_bootstrap_draws_whole_rows_evenly() -> None:
    rows = Bootstrap(np.array([10, 20, 30, 40]), np.array([1, 2, 3, 4]))
    prompt, output = rows.draw(np.random.default_rng(0), N)
    assert (prompt == 10 * output).all()
    counts = np.bincount(output, minlength=5)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_bootstrap_refuses_unequal_and_empty_columns() -> None:
    with pytest.raises(InputError, match="2 prompt lengths for 1 output lengths"):
        Bootstrap(np.array([1, 2]), np.array([1]))
    with pytest.raises(InputError, match="0 prompt lengths"):
        Bootstrap(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
