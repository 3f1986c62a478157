import math

import pytest

from validate_gpu.comparison.figures import RANKED, Figure, compare_figures, find_figure, rank


def summary(scale):
    return {name: {"mean": scale, "p50": 0.5 * scale, "p90": 2 * scale, "p99": 4 * scale} for name in LATENCIES}


LATENCIES = ("ttft_s", "tpot_s", "e2e_s")


def test_every_statistic_is_measured_by_repeat_and_its_error_is_a_share_of_their_mean():
    figures = compare_figures([summary(1.0), summary(1.5)], summary(1.0))
    assert len(figures) == 12
    p99 = find_figure(figures, "ttft_s", "p99")
    assert p99.measured == (4.0, 6.0)
    assert p99.mean == 5.0
    assert p99.error_pct == pytest.approx(-20)


def test_noise_is_the_spread_of_the_repeats():
    assert Figure("e2e_s", "mean", (0.9, 1.0, 1.1), 1.0).noise_pct == pytest.approx(20)
    assert math.isnan(Figure("e2e_s", "mean", (0.9,), 1.0).noise_pct)


def test_nothing_measured_has_no_error():
    assert math.isnan(Figure("e2e_s", "mean", (0.0, 0.0), 1.0).error_pct)


def ranked(measured, predicted):
    """The ranking of two policies by mean E2E, of all figures the same."""
    figures = {
        name: [Figure(metric, statistic, repeats, prediction) for metric, statistic in RANKED]
        for name, repeats, prediction in zip("ab", measured, predicted, strict=True)
    }
    return next(found for found in rank(figures) if (found.metric, found.statistic) == ("e2e_s", "mean"))


@pytest.mark.parametrize(
    ("measured", "told_apart"),
    [
        (((1.0, 1.1), (1.2, 1.3)), True),
        (((1.2, 1.3), (1.0, 1.1)), True),
        (((1.0, 1.2), (1.1, 1.3)), False),
        # Once is no measure of noise.
        (((1.0,), (2.0,)), False),
    ],
)
def test_policies_differ_where_all_repeats_of_one_are_below_the_others(measured, told_apart):
    assert ranked(measured, (1.0, 2.0)).told_apart is told_apart


def test_a_ranking_is_alike_where_prediction_has_the_same_sign():
    found = ranked(((1.0, 1.0), (1.5, 1.5)), (2.0, 2.2))
    assert (found.first, found.second) == ("a", "b")
    assert (found.measured_pct, found.predicted_pct) == (pytest.approx(50), pytest.approx(10))
    assert found.alike
    assert not ranked(((1.0, 1.0), (1.5, 1.5)), (2.2, 2.0)).alike


def test_every_two_policies_are_ranked_by_every_figure():
    figures = {name: [Figure(*figure, (1.0,), 1.0) for figure in RANKED] for name in "abc"}
    assert len(rank(figures)) == 3 * len(RANKED)
