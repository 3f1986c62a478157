"""Pictures of sweeps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from l4sim.errors import InputError
from l4sim.results.plots.style import KNOWN
from l4sim.results.plots.sweep import attainment_against_scale, goodput_against_load, latency_against_load
from l4sim.results.slo import parse_slo

SLO = parse_slo("ttft=3s,tpot=50ms")
RATES = [1.0, 2.0, 4.0, 8.0]
SETTINGS = ("policy", "rate_per_s", "instances")


def means(policies=("round-robin", "l4"), instances=(4,), throughput=(1.0, 2.0, 3.0, 3.1), **more):
    """Rows whose normalized latency is 10 ms per request/s, give or take 2 ms, and whose goodput is half the rate."""
    rows = [
        {
            "policy": policy,
            "rate_per_s": rate,
            "instances": count,
            "normalized_latency_mean_s": 0.01 * rate,
            "normalized_latency_mean_s_ci95": 0.002,
            "ttft_p99_s": rate,
            "ttft_p99_s_ci95": float("nan"),
            "throughput_requests_per_s": served,
            "goodput_requests_per_s": rate / 2,
            "goodput_requests_per_s_ci95": float("nan"),
            "slo_attainment_at_0.5": 0.2,
            "slo_attainment_at_1": 0.6,
            "slo_attainment_at_1_ci95": 0.1,
            "slo_attainment_at_2": 0.9,
        }
        | more
        for policy in policies
        for count in instances
        for rate, served in zip(RATES, throughput, strict=True)
    ]
    return pd.DataFrame(rows)


def marks(ax, colour, face):
    """The rates that have a mark of this colour, filled with ``face``."""
    lines = [line for line in ax.lines if line.get_color() == colour and line.get_markerfacecolor() == face]
    return [rate for line in lines if line.get_marker() == "o" for rate in line.get_xdata().tolist()]


@pytest.mark.slow
def test_latency_in_milliseconds_per_token_against_the_rate():
    ax = latency_against_load(means(), SETTINGS).axes[0]
    line = next(line for line in ax.lines if line.get_color() == KNOWN["l4"])
    np.testing.assert_allclose(line.get_xydata(), [[rate, 10 * rate] for rate in RATES])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("arrival rate (requests/s)", "mean E2E / output tokens (ms)")


@pytest.mark.slow
def test_hollow_from_the_rate_on_that_gets_no_more_throughput():
    ax = latency_against_load(means(), SETTINGS).axes[0]
    # At 4/s 3.0/s are served, and twice that rate has 3 % more; at 2/s it has 55 % more.
    assert marks(ax, KNOWN["l4"], "white") == [4.0, 8.0]
    assert marks(ax, KNOWN["l4"], KNOWN["l4"]) == [1.0, 2.0]


@pytest.mark.slow
def test_nothing_is_hollow_while_throughput_follows_the_rate():
    figure = latency_against_load(means(throughput=RATES), SETTINGS)
    assert marks(figure.axes[0], KNOWN["l4"], "white") == []
    assert [entry.get_text() for entry in figure.legends[0].get_texts()] == ["round-robin", "l4"]


def test_goodput_and_the_line_that_it_cannot_cross():
    [ax] = goodput_against_load(means(), SETTINGS, SLO).axes
    dotted = next(line for line in ax.lines if line.get_linestyle() == ":")
    np.testing.assert_array_equal(dotted.get_xdata(), dotted.get_ydata())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.5, 1, 2, 4])


def test_attainment_at_three_rates_against_the_scale_of_the_slo():
    axes = attainment_against_scale(means(), SETTINGS, SLO).axes
    assert [ax.get_title() for ax in axes] == ["1 requests/s", "4 requests/s", "8 requests/s"]
    np.testing.assert_allclose(axes[0].lines[0].get_xydata(), [[0.5, 20], [1, 60], [2, 90]])


@pytest.mark.slow
def test_other_settings_that_vary_have_panels_of_their_own():
    axes = latency_against_load(means(instances=(4, 8)), SETTINGS).axes
    assert [ax.get_title() for ax in axes] == ["instances 4", "instances 4", "instances 8", "instances 8"]


def test_without_a_rate_the_number_that_was_varied():
    table = means(instances=(4, 8))
    ax = latency_against_load(table[table["rate_per_s"] == 2.0], SETTINGS).axes[0]
    assert ax.get_xlabel() == "instances"
    assert ax.lines[0].get_xdata().tolist() == [4, 8]


def test_more_combinations_than_panels_are_refused():
    with pytest.raises(InputError, match="7 combinations of instances: a picture has room for 6"):
        latency_against_load(means(instances=range(1, 8)), SETTINGS)


def test_nothing_varied_or_no_limit_on_requests_is_no_picture():
    assert latency_against_load(means().iloc[:1], SETTINGS) is None
    bare = means().loc[:, lambda frame: ~frame.columns.str.contains("slo|goodput")]
    assert goodput_against_load(bare, SETTINGS, SLO) is None
    assert attainment_against_scale(bare, SETTINGS, SLO) is None


@pytest.mark.slow
def test_the_limits_are_told_in_the_picture():
    assert (
        goodput_against_load(means(), SETTINGS, SLO).axes[0].get_title() == "requests with TTFT ≤ 3 s and TPOT ≤ 50 ms"
    )
    entries = attainment_against_scale(means(), SETTINGS, SLO).legends[0].get_texts()
    assert "1: TTFT ≤ 3 s and TPOT ≤ 50 ms" in [entry.get_text() for entry in entries]


@pytest.mark.slow
def test_intervals_stand_beside_one_another_and_marks_where_they_are():
    figure = latency_against_load(means(), SETTINGS)
    ax = figure.axes[0]
    first, second = (
        next(line for line in ax.lines if line.get_color() == KNOWN[policy]) for policy in ("round-robin", "l4")
    )
    assert first.get_xdata().tolist() == second.get_xdata().tolist() == RATES
    left, right = (line.get_transform().transform([2.0, 20.0])[0] for line in (first, second))
    assert (right - left) / figure.dpi * 72 == pytest.approx(3)


@pytest.mark.slow
def test_an_interval_that_would_flatten_the_lines_leaves_the_picture():
    ax = latency_against_load(means(normalized_latency_mean_s_ci95=5.0), SETTINGS).axes[0]
    # Means from 10 to 80 ms, intervals of 5,000 ms either way.
    assert ax.get_ylim() == pytest.approx((10 / 3, 80 * 3))


@pytest.mark.slow
def test_where_no_request_finished_there_is_no_latency_and_no_goodput():
    none = means(normalized_latency_mean_s=float("nan"), ttft_p99_s=float("nan"), goodput_requests_per_s=0.0)
    assert latency_against_load(none, SETTINGS) is None
    assert goodput_against_load(none, SETTINGS, SLO).axes[0].get_ylim()[1] > 0
    some = pd.concat([means(["l4"]), none[none["policy"] != "l4"]])
    entries = latency_against_load(some, SETTINGS).legends[0].get_texts()
    assert [entry.get_text() for entry in entries] == ["l4", "hollow: saturated"]
