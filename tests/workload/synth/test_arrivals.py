"""Arrival processes: rates, burstiness and extents, with tolerances of five standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from l4sim.errors import InputError
from l4sim.workload.synth.arrivals import Arrivals, Constant, Diurnal, Gamma, OnOff, Piecewise, Poisson, Weibull

N = 50_000
SIGMAS = 5

PROCESSES: list[Arrivals] = [
    Constant(2.0),
    Poisson(2.0),
    Gamma(2.0, 3.0),
    Gamma(2.0, 0.2),
    Weibull(2.0, 2.5),
    Weibull(2.0, 0.1),
    OnOff(2.0, on_s=5.0, off_s=20.0),
    OnOff(2.0, on_s=5.0, off_s=20.0, off_ratio=0.3),
    Piecewise(((10.0, 1.0), (5.0, 0.0), (10.0, 4.0))),
    Diurnal(2.0, amplitude=1.0, period_s=100.0, peak_s=30.0),
]


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_and_error(gaps_s: np.ndarray) -> tuple[float, float]:
    return float(gaps_s.mean()), float(gaps_s.std() / math.sqrt(len(gaps_s)))


def cv_and_error(gaps_s: np.ndarray) -> tuple[float, float]:
    """The sample's CV and its standard error by the delta method, from the sample's own central moments."""
    mean, variance = gaps_s.mean(), gaps_s.var()
    third, fourth = (float(((gaps_s - mean) ** k).mean()) for k in (3, 4))
    cv = math.sqrt(variance) / mean
    relative = (fourth / variance**2 - 1) / 4 - third / (mean * variance) + cv**2
    return cv, cv * math.sqrt(relative / len(gaps_s))


@pytest.mark.slow
@given(st.sampled_from(PROCESSES), st.integers(1, 300), st.integers(0, 2**32))
def test_a_number_of_requests_is_met_exactly_in_ascending_float64(process: Arrivals, requests: int, seed: int) -> None:
    times_s = process.times(rng(seed), requests=requests)
    assert times_s.dtype == np.float64
    assert len(times_s) == requests
    assert times_s[0] >= 0
    assert (np.diff(times_s) >= 0).all()


@pytest.mark.slow
@given(st.sampled_from(PROCESSES), st.floats(0.001, 300), st.integers(0, 2**32))
def test_no_arrival_comes_after_the_duration(process: Arrivals, duration_s: float, seed: int) -> None:
    times_s = process.times(rng(seed), duration_s=duration_s)
    assert (np.diff(times_s) >= 0).all()
    assert (times_s >= 0).all()
    # One rounding of the inverse cumulative rate may carry the last arrival past the end.
    assert (times_s <= duration_s * (1 + 1e-12)).all()


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_the_same_seed_gives_the_same_times(process: Arrivals) -> None:
    assert np.array_equal(process.times(rng(7), requests=500), process.times(rng(7), requests=500))


def test_a_duration_beyond_the_first_chunk_holds_as_many_arrivals_as_the_rate_says() -> None:
    expected = 20_000
    count = len(Poisson(10.0).times(rng(), duration_s=2000.0))
    assert abs(count - expected) <= SIGMAS * math.sqrt(expected)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert Constant(4.0).times(rng(), requests=4).tolist() == [0.25, 0.5, 0.75, 1.0]
    assert Constant(4.0).times(rng(), duration_s=0.8).tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("process", "cv"),
    [
        (Poisson(8.0), 1.0),
        (Gamma(8.0, 2.5), 2.5),
        (Gamma(8.0, 0.4), 0.4),
        (Weibull(8.0, 2.0), 2.0),
        (Weibull(8.0, 0.5), 0.5),
    ],
    ids=repr,
)
def test_a_renewal_process_has_the_given_rate_and_cv(process: Arrivals, cv: float) -> None:
    gaps_s = np.diff(process.times(rng(), requests=N))
    mean, mean_error = mean_and_error(gaps_s)
    sample_cv, cv_error = cv_and_error(gaps_s)
    assert abs(mean - 1 / 8.0) <= SIGMAS * mean_error
    assert abs(sample_cv - cv) <= SIGMAS * cv_error


def test_weibull_gaps_of_cv_root_five_have_shape_one_half() -> None:
    # Shape 1/2: mean = scale Γ(3) = 2 scale, CV² = Γ(5)/Γ(3)² - 1 = 24/4 - 1 = 5.
    gaps_s = np.diff(Weibull(1.0, math.sqrt(5)).times(rng(), requests=N))
    assert stats.kstest(gaps_s, stats.weibull_min(0.5, scale=0.5).cdf).pvalue > 1e-3


def test_gamma_gaps_of_cv_two_have_shape_one_quarter() -> None:
    gaps_s = np.diff(Gamma(3.0, 2.0).times(rng(), requests=N))
    assert stats.kstest(gaps_s, stats.gamma(0.25, scale=4 / 3).cdf).pvalue > 1e-3


def test_on_off_arrivals_with_silence_are_the_interrupted_poisson_process() -> None:
    process = OnOff(4.0, on_s=10.0, off_s=30.0)
    assert process.on_rate_per_s == 16.0
    gaps_s = np.diff(process.times(rng(), requests=N))
    mean, mean_error = mean_and_error(gaps_s)
    cv, cv_error = cv_and_error(gaps_s)
    # Kuczura 1973: CV² = 1 + 2 λ ω / (ω + ω')² with ω = 1/on_s, ω' = 1/off_s.
    expected_cv = math.sqrt(1 + 2 * 16.0 * (1 / 10) / (1 / 10 + 1 / 30) ** 2)
    assert abs(mean - 1 / 4.0) <= SIGMAS * mean_error
    assert abs(cv - expected_cv) <= SIGMAS * cv_error


def test_on_off_arrivals_without_contrast_are_poisson() -> None:
    gaps_s = np.diff(OnOff(2.0, on_s=3.0, off_s=9.0, off_ratio=1.0).times(rng(), requests=N))
    assert stats.kstest(gaps_s, stats.expon(scale=0.5).cdf).pvalue > 1e-3


def test_on_off_arrivals_for_a_duration_have_the_long_run_rate() -> None:
    duration_s, process = 50_000.0, OnOff(1.0, on_s=2.0, off_s=3.0)
    # Variance of the count: Poisson's plus that of the modulating rate, 2 λ² p (1 - p) τ t with 1/τ = 1/on_s + 1/off_s.
    variance = duration_s * (1 + 2 * process.on_rate_per_s**2 * 0.4 * 0.6 / (1 / 2.0 + 1 / 3.0))
    count = len(process.times(rng(), duration_s=duration_s))
    assert abs(count - duration_s) <= SIGMAS * math.sqrt(variance)


@pytest.mark.slow
def test_on_off_arrivals_start_in_either_state_as_often_as_they_are_in_it() -> None:
    # Periods far longer than what is watched, so whether anything arrives at all is the first state.
    process, trials = OnOff(1.0, on_s=1e6, off_s=3e6), 2000
    on = sum(len(process.times(rng(seed), duration_s=10.0)) > 0 for seed in range(trials))
    assert abs(on / trials - 1 / 4) <= SIGMAS * math.sqrt(1 / 4 * 3 / 4 / trials)


def test_each_piecewise_segment_has_its_own_rate_and_the_cycle_repeats() -> None:
    process = Piecewise(((100.0, 20.0), (50.0, 0.0), (200.0, 5.0)))
    times_s = process.times(rng(), duration_s=700.0)
    edges_s = [0, 100, 150, 350, 450, 500, 700]
    for count, expected in zip(np.histogram(times_s, edges_s)[0], [2000, 0, 1000] * 2, strict=True):
        assert abs(count - expected) <= SIGMAS * math.sqrt(expected)


def test_diurnal_arrivals_swing_around_the_mean_rate() -> None:
    process = Diurnal(5.0, amplitude=0.8, period_s=4000.0, peak_s=1000.0)
    times_s = process.times(rng(), duration_s=8000.0)
    counts = np.histogram(times_s, [0, 2000, 4000, 6000, 8000])[0]
    # The half period around the peak holds R (P/2 + a P/π), the other half R (P/2 - a P/π).
    swing = 0.8 * 4000 / math.pi
    for count, expected in zip(counts, [5 * (2000 + swing), 5 * (2000 - swing)] * 2, strict=True):
        assert abs(count - expected) <= SIGMAS * math.sqrt(expected)


def test_diurnal_arrivals_in_their_own_time_are_a_unit_poisson_process() -> None:
    process = Diurnal(5.0, amplitude=0.9, period_s=600.0, peak_s=-50.0)
    gaps = np.diff(process.expected(process.times(rng(), requests=N)))
    assert stats.kstest(gaps, stats.expon.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(0.0), "the rate must be a number > 0"),
        (lambda: Constant(math.nan), "not nan"),
        (lambda: Gamma(1.0, 0.0), "cv must be a number > 0"),
        (lambda: Weibull(1.0, 0.001), "cv must be from 0.02 to 100"),
        (lambda: OnOff(1.0, on_s=0.0, off_s=1.0), "on_s must be seconds > 0"),
        (lambda: OnOff(1.0, on_s=1.0, off_s=math.inf), "off_s must be seconds > 0"),
        (lambda: OnOff(1.0, on_s=1.0, off_s=1.0, off_ratio=1.5), "off_ratio must be from 0 to 1"),
        (lambda: Piecewise(()), "at least one"),
        (lambda: Piecewise(((1.0, 2.0), (-1.0, 2.0))), "segment 2"),
        (lambda: Piecewise(((1.0, 0.0),)), "one segment's rate must be > 0"),
        (lambda: Diurnal(1.0, amplitude=1.1), "amplitude must be from 0 to 1"),
        (lambda: Diurnal(1.0, amplitude=0.5, period_s=0.0), "period_s must be seconds > 0"),
        (lambda: Poisson(1.0).times(rng()), "either a number of requests or a duration"),
        (
            lambda: OnOff(1.0, 1.0, 1.0).times(rng(), requests=5, duration_s=5.0),
            "either a number of requests or a duration",
        ),
        (lambda: Diurnal(1.0, 0.5).times(rng(), requests=0), "requests must be an integer >= 1"),
        (lambda: Constant(1.0).times(rng(), duration_s=-1.0), "duration must be seconds > 0"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
