"""Segments as means over bins of time."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.results.plots.bins import binned_means, time_edges_s


def test_a_bin_weights_values_by_their_time_and_idle_time_as_zero(make_tiny):
    run = make_tiny(
        iterations=[
            {"instance": 0, "start_s": 0.5, "end_s": 3.5, "waiting_requests": 4},
            {"instance": 1, "start_s": 1.25, "end_s": 1.75, "waiting_requests": 8},
            {"instance": 1, "start_s": 1.75, "end_s": 2.25, "waiting_requests": 2},
            {"instance": 1, "start_s": 3.0, "end_s": 4.0, "waiting_requests": 1},
        ]
    )
    edges_s = time_edges_s([run], 4)
    means = binned_means(run, run.iterations["waiting_requests"].to_numpy(), edges_s)
    assert edges_s.tolist() == [0, 1, 2, 3, 4]
    # Instance 1: in 1..2 half a second of 8 and a quarter of 2; in 2..3 a quarter second of 2.
    assert means == pytest.approx(np.array([[2, 4, 4, 2], [0, 4.5, 0.5, 1]]))


def test_the_mean_over_all_bins_is_the_integral_of_the_segments(make_run):
    run = make_run("l4")
    values = run.iterations["decode_requests"].to_numpy()
    edges_s = time_edges_s([run], 37)
    integral = (values * (run.iterations["end_s"] - run.iterations["start_s"])).sum()
    assert binned_means(run, values, edges_s).sum() * edges_s[1] == pytest.approx(integral)


def test_edges_span_the_longest_run(make_tiny):
    short, long = (make_tiny(iterations=[{"end_s": end_s}]) for end_s in (2.0, 6.0))
    assert time_edges_s([short, long, make_tiny()], 2).tolist() == [0, 3, 6]
