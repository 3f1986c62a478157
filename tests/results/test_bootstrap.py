"""The block bootstrap: how long blocks are, and that its draws are what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.results.bootstrap import Resamples, block_length


def autoregressive(rho: float, count: int, seed: int = 3):
    noise = np.random.default_rng(seed).normal(size=count)
    series = np.zeros(count)
    for place in range(1, count):
        series[place] = rho * series[place - 1] + noise[place]
    return series


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_blocks_are_about_as_long_as_is_best_for_a_known_process(rho):
    # The optimum of an AR(1): Patton, Politis & White (2009), with its autocovariances in closed form.
    best = (1.5 * (2 * rho / (1 - rho**2)) ** 2 * 5000) ** (1 / 3)
    found = np.median([block_length(autoregressive(rho, 5000, seed)) for seed in range(5)])
    assert found == pytest.approx(best, rel=0.4)


def test_independent_values_need_no_blocks():
    assert block_length(np.random.default_rng(0).normal(size=5000)) <= 4
    assert block_length(np.ones(50)) == 1


@pytest.mark.parametrize("block", [1, 7, 100])
def test_sums_and_quantiles_are_those_of_the_values_drawn(block):
    values = np.random.default_rng(1).normal(size=300)
    draws = Resamples(300, block)
    # Each value's own indicator: how often it is in each draw.
    times = draws.sums(np.eye(300)).astype(int)
    assert (times.sum(axis=1) == draws.blocks * block).all()
    np.testing.assert_allclose(draws.sums(values[:, None])[:, 0], times @ values, atol=1e-9)
    among = np.arange(0, 300, 2)
    drawn = times[:, among].sum(axis=1).astype(float)
    found = draws.upper_quantiles(values, 0.05, among, drawn)
    for number in range(0, draws.draws, 37):
        ordered = np.sort(np.repeat(values[among], times[number, among]))[::-1]
        assert found[number] == ordered[int(0.05 * len(ordered))]


def test_neighbours_are_drawn_together_around_the_circle():
    times = Resamples(12, 4).sums(np.eye(12))
    steps = np.diff(np.concatenate([times, times[:, :1]], axis=1), axis=1)
    assert (times.sum(axis=1) == 12).all()
    # Three blocks begin and three end, wherever they lie.
    assert (np.maximum(steps, 0).sum(axis=1) <= 3).all()


@pytest.mark.slow
def test_its_interval_of_a_mean_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(60):
        series = autoregressive(0.8, 2000, seed)
        draws = Resamples(2000, block_length(series))
        means = draws.sums(series[:, None])[:, 0] / (draws.blocks * draws.block)
        held += abs(series.mean()) < 2 * means.std()
    assert 0.85 <= held / 60 <= 1.0
