"""Full load: what is idle, what is full, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import l4sim
from l4sim.errors import InputError
from l4sim.sweeps.full_load import POLICY, arriving_tokens_per_s, full_load
from l4sim.workload.transform import pace, take

CLUSTER = l4sim.Cluster(instances=2)
REQUESTS = 200


@pytest.fixture(scope="module")
def trace():
    return l4sim.synthesize("chat", output_lengths="lognormal:mu=4,sigma=0.8,max=400", rate_per_s=1, requests=REQUESTS)


@pytest.fixture(scope="module")
def found(trace):
    return full_load(trace, CLUSTER)


def mean_s(run):
    return run.requests["normalized_latency_s"].mean()


@pytest.mark.slow
def test_an_idle_cluster_serves_one_request_at_a_time(trace, found):
    for row in (0, 7, REQUESTS - 1):
        alone = take(trace, np.array([row]))
        expected_s = l4sim.replay(alone, "round-robin", CLUSTER).requests["e2e_s"].iloc[0]
        assert found.idle.requests["e2e_s"].iloc[row] == pytest.approx(expected_s)


@pytest.mark.slow
def test_the_full_rate_is_the_edge_of_three_times_the_idle_latency(trace, found):
    assert mean_s(found.full) <= 3 * mean_s(found.idle)
    beyond = l4sim.replay(pace(trace, rate_per_s=1.03 * found.rate_per_s), POLICY, CLUSTER)
    assert mean_s(beyond.runs[0]) > 3 * mean_s(found.idle)


@pytest.mark.slow
def test_requests_arrive_for_several_lifetimes_of_the_slowest(found):
    slowest_s = found.full.requests["e2e_s"].max()
    assert found.lifetimes == pytest.approx((REQUESTS - 1) / found.rate_per_s / slowest_s)


@pytest.mark.slow
def test_a_lower_slowdown_is_reached_at_a_lower_rate(trace, found):
    assert full_load(trace, CLUSTER, slowdown=1.5, tolerance=0.1).rate_per_s < found.rate_per_s


@pytest.mark.slow
def test_a_trace_that_is_too_short_is_refused_and_so_is_no_slowdown(trace):
    with pytest.raises(InputError, match="40 requests never reach 1000 times the latency of an idle cluster"):
        full_load(take(trace, np.arange(40)), CLUSTER, slowdown=1000)
    with pytest.raises(InputError, match="the slowdown is 1, accepted is a number above 1"):
        full_load(trace, CLUSTER, slowdown=1)
    with pytest.raises(InputError, match="all requests arrive at once: give them a rate"):
        full_load(replace(trace, arrival_s=np.zeros(REQUESTS)), CLUSTER)


@pytest.mark.slow
def test_the_rate_that_a_trace_has_is_only_where_the_search_begins(trace, found):
    elsewhere = full_load(pace(trace, rate_per_s=500), CLUSTER)
    assert elsewhere.rate_per_s == pytest.approx(found.rate_per_s, rel=0.03)


def test_tokens_are_counted_while_requests_arrive():
    # Two requests, 10 s apart, of 101 tokens each: all of the first one's are there when the second arrives.
    pair = l4sim.synthesize(
        prompt_lengths="fixed:tokens=100", output_lengths="fixed:tokens=101", rate_per_s=1, requests=2
    )
    [run] = l4sim.replay(replace(pair, arrival_s=np.array([5.0, 15.0])), "least-harm", CLUSTER).runs
    assert arriving_tokens_per_s(run) == pytest.approx(101 / 10)
    # And part of them when it comes half way between the first one's first token and its last.
    ttft_s, e2e_s = run.requests.loc[0, ["ttft_s", "e2e_s"]]
    gap_s = (ttft_s + e2e_s) / 2
    [run] = l4sim.replay(replace(pair, arrival_s=np.array([5.0, 5.0 + gap_s])), "least-harm", CLUSTER).runs
    assert arriving_tokens_per_s(run) == pytest.approx(101 / 2 / gap_s)
