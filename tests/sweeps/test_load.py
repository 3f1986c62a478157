"""Full load: what is idle, what is full, and what cannot be."""

from __future__ import annotations

import numpy as np
import pytest

import l4sim
from l4sim.errors import InputError
from l4sim.sweeps.load import full_load
from l4sim.workload.arrange import pace, take

CLUSTER = l4sim.Cluster(instances=2)


@pytest.fixture(scope="module")
def trace():
    return l4sim.synthesize("chat", output_lengths="lognormal:mu=4,sigma=0.8,max=400", rate_per_s=1, requests=400)


@pytest.fixture(scope="module")
def found(trace):
    return full_load(trace, CLUSTER)


def mean_s(run):
    return run.requests["normalized_latency_s"].mean()


def test_an_idle_cluster_serves_one_request_at_a_time(trace, found):
    for row in (0, 7, 399):
        alone = take(trace, np.array([row]))
        expected_s = l4sim.replay(alone, "round-robin", CLUSTER).requests["e2e_s"].iloc[0]
        assert found.idle.requests["e2e_s"].iloc[row] == pytest.approx(expected_s)


def test_the_full_rate_is_the_edge_of_three_times_the_idle_latency(trace, found):
    assert mean_s(found.full) <= 3 * mean_s(found.idle)
    beyond = l4sim.replay(pace(trace, rate_per_s=1.03 * found.rate_per_s), "vllm", CLUSTER)
    assert mean_s(beyond.runs[0]) > 3 * mean_s(found.idle)


def test_requests_arrive_for_several_lifetimes_of_the_slowest(found):
    slowest_s = found.full.requests["e2e_s"].max()
    assert found.lifetimes == pytest.approx(399 / found.rate_per_s / slowest_s)


def test_a_lower_slowdown_is_reached_at_a_lower_rate(trace, found):
    assert full_load(trace, CLUSTER, slowdown=1.5, tolerance=0.1).rate_per_s < found.rate_per_s


def test_a_trace_that_is_too_short_is_refused_and_so_is_no_slowdown(trace):
    with pytest.raises(InputError, match="400 requests never reach 1000 times the latency of an idle cluster"):
        full_load(trace, CLUSTER, slowdown=1000)
    with pytest.raises(InputError, match="the slowdown is 1, accepted is a number above 1"):
        full_load(trace, CLUSTER, slowdown=1)
