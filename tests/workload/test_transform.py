from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4sim.errors import InputError
from l4sim.workload.trace import PrefixBlocks, Trace
from l4sim.workload.transform import (
    NEEDS_RATE,
    dejitter,
    head,
    pace,
    scale_rate,
    take,
    with_concurrency,
    with_poisson_arrivals,
    with_rate,
    within,
)
from tests.workload.trace_strategies import traces

NAN = math.nan


def conversation() -> Trace:
    """Two requests alone, and a session of three turns between them."""
    return Trace(
        name="t",
        request_id=("a", "s0", "b", "s1", "s2"),
        arrival_s=np.array([0.0, 1.0, 4.0, NAN, NAN]),
        prompt_tokens=np.array([10, 20, 30, 40, 50]),
        output_tokens=np.array([1, 2, 3, 4, 5]),
        session=np.array([-1, 0, -1, 0, 0]),
        after=np.array([-1, -1, -1, 1, 3]),
        delay_s=np.array([NAN, NAN, NAN, 7.0, 8.0]),
        prefix=PrefixBlocks(np.array([1, 2, 2, 3, 2, 3, 4]), np.array([0, 1, 2, 2, 4, 7]), 16),
        warnings=("clamped", NEEDS_RATE),
    )


def assert_links_valid(trace: Trace) -> None:
    """What `Trace` promises of arrivals and links."""
    rows = np.arange(len(trace))
    is_open = trace.after < 0
    assert (trace.after < rows).all()
    assert np.isnan(trace.arrival_s[~is_open]).all()
    assert np.isnan(trace.delay_s[is_open]).all()
    assert (trace.arrival_s[is_open] >= 0).all()
    assert (np.diff(trace.arrival_s[is_open]) >= 0).all()
    assert (trace.session[~is_open] == trace.session[trace.after[~is_open]]).all()


def test_poisson_arrivals_replace_open_loop_times_only() -> None:
    trace = with_poisson_arrivals(conversation(), 2.0, seed=3)
    assert trace.arrival_s[0] == 0
    assert np.isnan(trace.arrival_s[3:]).all()
    np.testing.assert_array_equal(trace.delay_s, conversation().delay_s)
    assert trace.warnings == ("clamped",)


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    many = take(conversation(), np.zeros(20_000, dtype=np.int64))
    gaps_s = np.diff(with_poisson_arrivals(many, 5.0, seed=1).arrival_s)
    # The mean of 20,000 exponential gaps has a standard error of 0.7 %; so does their coefficient of variation.
    assert gaps_s.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(1.0, rel=0.03)


def test_scaling_the_rate_stretches_arrivals_but_no_delays() -> None:
    trace = scale_rate(conversation(), 4.0)
    np.testing.assert_array_equal(trace.arrival_s, [0, 0.25, 1, NAN, NAN])
    np.testing.assert_array_equal(trace.delay_s, conversation().delay_s)


def test_the_first_rows_keep_their_links_and_blocks() -> None:
    trace = head(conversation(), 4)
    assert trace.request_id == ("a", "s0", "b", "s1")
    assert trace.after.tolist() == [-1, -1, -1, 1]
    assert trace.prefix is not None
    assert trace.prefix.ids.tolist() == [1, 2, 2, 3]
    assert trace.prefix.offsets.tolist() == [0, 1, 2, 2, 4]
    assert len(head(conversation(), 99)) == 5


def test_a_duration_keeps_sessions_whole() -> None:
    trace = within(conversation(), 4.0)
    assert trace.request_id == ("a", "s0", "s1", "s2")
    assert trace.after.tolist() == [-1, -1, 1, 2]
    assert trace.prefix is not None
    assert trace.prefix.ids.tolist() == [1, 2, 2, 3, 2, 3, 4]
    assert within(conversation(), 0.5).request_id == ("a",)


def test_a_duration_in_which_nothing_arrives_is_refused() -> None:
    late = replace(conversation(), arrival_s=conversation().arrival_s + 60)
    with pytest.raises(InputError, match="t: no request arrives in the first 60 s"):
        within(late, 60.0)


def test_dejittering_spreads_arrivals_over_one_tick() -> None:
    ticks = take(conversation(), np.repeat([0, 1], 500))
    spread = dejitter(ticks, 1.0, seed=5)
    assert len(np.unique(spread.arrival_s)) == 1000
    assert spread.arrival_s[0] == 0
    # 1,000 uniform draws over 2 s: their mean has a standard error of 0.02 s.
    assert spread.arrival_s.mean() == pytest.approx(1.0, abs=0.1)
    assert spread.arrival_s.max() < 2.0


@pytest.mark.slow
@settings(deadline=None)  # a busy machine is no failure
@given(traces(), st.integers(0, 2**32 - 1), st.floats(0.01, 100.0))
def test_every_arrangement_keeps_the_trace_valid(trace: Trace, seed: int, amount: float) -> None:
    first_s = float(np.nanmin(trace.arrival_s))
    for arranged in (
        with_poisson_arrivals(trace, amount, seed),
        scale_rate(trace, amount),
        dejitter(trace, amount, seed),
        head(trace, 1 + seed % len(trace)),
        within(trace, first_s + amount),
    ):
        assert_links_valid(arranged)


@pytest.mark.slow
@settings(deadline=None)
@given(traces(), st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_arrivals(trace: Trace, seed: int) -> None:
    for arrange in (with_poisson_arrivals, dejitter):
        np.testing.assert_array_equal(arrange(trace, 3.0, seed).arrival_s, arrange(trace, 3.0, seed).arrival_s)


@pytest.mark.parametrize("wrong", [0.0, -1.0, NAN, math.inf])
def test_rates_ticks_and_durations_must_be_positive(wrong: float) -> None:
    with pytest.raises(InputError, match="the rate must be a positive number"):
        with_poisson_arrivals(conversation(), wrong, seed=0)
    with pytest.raises(InputError, match="the rate scale must be a positive number"):
        scale_rate(conversation(), wrong)
    with pytest.raises(InputError, match="the tick must be a positive number"):
        dejitter(conversation(), wrong, seed=0)
    with pytest.raises(InputError, match="the duration must be a positive number"):
        within(conversation(), wrong)


def test_a_rate_stretches_the_arrivals_that_a_trace_has() -> None:
    # Two gaps in 4 s are 0.5 per second.
    np.testing.assert_array_equal(with_rate(conversation(), 2.0, seed=0).arrival_s, [0, 0.25, 1, NAN, NAN])


def test_a_rate_makes_arrivals_poisson_where_a_trace_has_none() -> None:
    timeless = scale_rate(take(conversation(), np.zeros(50, dtype=np.int64)), 1.0)
    np.testing.assert_array_equal(
        with_rate(timeless, 2.0, seed=4).arrival_s, with_poisson_arrivals(timeless, 2.0, seed=4).arrival_s
    )


def test_a_closed_loop_keeps_order_sessions_and_delays_and_has_no_times() -> None:
    trace = with_concurrency(conversation(), 2)
    assert_links_valid(trace)
    assert trace.concurrency == 2
    assert trace.arrival_s[:3].tolist() == [0.0] * 3
    np.testing.assert_array_equal(trace.delay_s, conversation().delay_s)
    assert trace.warnings == ("clamped",)
    assert head(trace, 3).concurrency == 2
    assert trace.content_hash != with_concurrency(conversation(), 3).content_hash


@pytest.mark.parametrize("given", [{"rate_per_s": 2.0}, {"rate_scale": 2.0}, {"duration_s": 5.0}])
def test_a_closed_loop_takes_no_times(given: dict[str, float]) -> None:
    (what,) = given
    with pytest.raises(
        InputError, match=f"a {what.split('_per_')[0].split('_s')[0]}.* and a concurrency exclude one an"
    ):
        pace(conversation(), concurrency=2, **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1 request, not 0"):
        with_concurrency(conversation(), 0)
