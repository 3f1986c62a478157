"""What a router hears besides arrivals: ends, publications, timers, KV events; and what it may keep back."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.policies.policy import Policy
from l4sim.policies.routers import HOLD, LeastOutstanding, RoundRobin
from l4sim.simulator import InstanceSpec, Rules, simulate_fleet
from l4sim.specs.events import Fail
from l4sim.specs.placement import Placement
from l4sim.workload.trace import PrefixBlocks
from tests.simulator.conftest import make_trace, requests, texts

ENGINE = EngineConfig(kv_blocks=40, max_model_len=500, max_num_seqs=8, max_num_batched_tokens=64)
INSTANCE = InstanceSpec(ENGINE, AffineCost(base_s=0.010), kv_bytes_per_token=1)


def run(trace, router, instances=2, **rules):
    """A run on equal instances whose iterations take 10 ms."""
    return simulate_fleet(
        trace, Policy(router), [INSTANCE] * instances, Placement(4), rules=Rules(validate=True, **rules)
    )


class Listener(RoundRobin):
    """Takes each instance in turn and keeps what it hears."""

    def __init__(self):
        super().__init__()
        self.heard, self.seen = [], []

    def route(self, request, instances):
        self.seen.append([(view.as_of_s, view.running + view.waiting) for view in instances])
        return super().route(request, instances)

    def ended(self, request, now_s):
        self.heard.append((request, round(now_s, 6)))


class Polled(Listener):
    """Sees counts that are published every 25 ms."""

    view_age_s = 0.025

    def published(self, now_s):
        self.heard.append(("published", round(now_s, 6)))


def test_a_router_hears_of_every_end_in_whichever_way():
    router = Listener()
    run(make_trace([0, 0, 0.001], [10, 10, 9999], [3, 1, 1]), router)
    assert router.heard == [(2, 0.001), (1, 0.01), (0, 0.03)], "the last one is too long for any instance"


def test_a_polling_router_sees_counts_of_the_last_publication():
    router = Polled()
    run(make_trace([0, 0.001, 0.026, 0.06], [10] * 4, [9] * 4), router)
    assert router.seen == [
        [(0.0, 0), (0.0, 0)],
        [(0.0, 0), (0.0, 0)],
        [(0.025, 1), (0.025, 1)],
        [(0.05, 2), (0.05, 1)],
    ]
    assert [what for what in router.heard if what[0] == "published"][:2] == [("published", 0.025), ("published", 0.05)]


def test_the_user_may_have_every_router_see_old_counts_which_then_count_what_was_sent_since():
    router = Listener()
    run(make_trace([0, 0.001, 0.026, 0.06], [10] * 4, [9] * 4), router, view_age_s=0.5)
    assert [[count for _, count in seen] for seen in router.seen] == [[0, 0], [1, 0], [1, 1], [2, 1]]
    assert {as_of_s for seen in router.seen for as_of_s, _ in seen} == {0.0}


def test_the_user_may_have_a_polling_router_see_live_counts():
    router = Polled()
    run(make_trace([0, 0.001, 0.005], [10] * 3, [9] * 3), router, view_age_s=0.0)
    assert [[count for _, count in seen] for seen in router.seen] == [[0, 0], [1, 0], [1, 1]]
    assert router.heard[0] == ("published", 0.0)


def test_old_counts_herd_requests_only_as_far_as_the_front_end_does_not_count_them():
    trace = make_trace(np.zeros(4), [10] * 4, [5] * 4)
    served = requests(run(trace, LeastOutstanding(), view_age_s=10.0))["first_instance"]
    assert sorted(served) == [0, 0, 1, 1]


class Ticking(RoundRobin):
    """Has a timer of its own."""

    def __init__(self):
        super().__init__()
        self.timers = {"look": 0.02}
        self.ticks = []

    def tick(self, name, now_s):
        self.ticks.append((name, round(now_s, 6)))


def test_timers_fire_every_period_until_the_run_is_over():
    router = Ticking()
    run(make_trace([0], [10], [5]), router)
    assert router.ticks == [("look", 0.02), ("look", 0.04)], "the answer ends at 50 ms"


class OneAtATime:
    """Keeps everything back while anything is in flight."""

    def __init__(self):
        self.busy = False

    def route(self, request, instances):
        if self.busy:
            return HOLD
        self.busy = True
        return 0

    def ended(self, request, now_s):
        self.busy = False


def test_what_a_router_keeps_back_waits_in_order_of_arrival_and_its_wait_counts_as_queueing():
    table = requests(run(make_trace([0, 0.001, 0.002], [10] * 3, [2] * 3), OneAtATime()))
    order = np.argsort(table["request_id"])
    ends_s = (table["arrival_s"] + table["e2e_s"])[order]
    np.testing.assert_allclose(ends_s, [0.02, 0.04, 0.06], atol=1e-9)
    np.testing.assert_allclose(table["queue_s"][order], [0, 0.019, 0.038], atol=1e-9)


def test_what_is_kept_back_fails_where_no_instance_is_left():
    policy = Policy(OneAtATime())
    result = simulate_fleet(
        make_trace([0, 0.001, 0.002], [10] * 3, [9] * 3),
        policy,
        [INSTANCE],
        Placement(1),
        events=[Fail(0, 0.03)],
        rules=Rules(validate=True),
    )
    assert texts(result.requests, "status") == ["failed"] * 3


class Never:
    """Wants nothing."""

    def route(self, request, instances):
        return HOLD


def test_a_router_that_can_never_want_a_request_is_refused():
    with pytest.raises(InputError, match="keeps request 0 back while nothing else is in flight"):
        run(make_trace([0], [10], [2]), Never())


class CacheKeeper(RoundRobin):
    """Keeps the cached blocks of each instance as KV events tell of them."""

    def __init__(self):
        super().__init__()
        self.cached = [set(), set()]
        self.ever = 0

    def cache_changed(self, instance, stored, removed):
        assert self.cached[instance].isdisjoint(stored)
        assert self.cached[instance].issuperset(removed)
        self.cached[instance] |= set(stored)
        self.cached[instance] -= set(removed)
        self.ever += len(stored)


def test_kv_events_tell_which_blocks_are_stored_and_which_are_gone():
    # Eight prompts of 10 blocks each, four to an instance of 40 blocks: something has to go.
    count = 12
    prefix = PrefixBlocks(np.arange(count * 10), 10 * np.arange(count + 1), 16)
    router = CacheKeeper()
    run(make_trace(0.2 * np.arange(count), [160] * count, [2] * count, prefix=prefix), router)
    assert router.ever >= count * 9
    assert all(9 <= len(cached) <= 40 for cached in router.cached)
