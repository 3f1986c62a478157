import os

import pytest

from l4sim.errors import InputError
from l4sim.experiment import policy_for
from l4sim.runtime.executor import ExecutionError
from tests.validate_gpu.live.small import make_trace
from tests.validate_gpu.test_lockstep import setup
from validate_gpu.decisions import Asked, replay_decisions
from validate_gpu.live.build import LiveOptions
from validate_gpu.realtime.driver import device_groups, realtime

CPU = LiveOptions(device="cpu")


def cores(monkeypatch, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(count)))


def test_instances_divide_the_cores_among_themselves(monkeypatch):
    cores(monkeypatch, 5)
    groups = device_groups(2, "cpu", share=False)
    assert groups == [("cpu", frozenset({0, 2, 4})), ("cpu", frozenset({1, 3}))]


def test_more_instances_than_devices_are_refused_unless_asked_for(monkeypatch):
    cores(monkeypatch, 2)
    with pytest.raises(
        InputError, match="3 instances for 2 CPU cores: accepted is --instances 2 or fewer, or --share-"
    ):
        device_groups(3, "cpu", share=False)
    shared = device_groups(3, "cpu", share=True)
    assert len(shared) == 3
    assert all(cpus for _, cpus in shared)


@pytest.mark.slow
def test_processes_serve_a_trace_by_the_wall_clock():
    # The first answers take longer than Llumnix's polls are apart, which then sends requests elsewhere.
    trace = make_trace([0.1 * n for n in range(12)], [40, 300, 7, 90] * 3, [300, 3, 200, 20] * 3)
    [live] = realtime(trace, ["llumnix"], setup(instances=2), CPU, share_devices=True).runs["llumnix"]
    table = live.run.requests
    assert (table["status"] == "finished").all()
    assert table["arrival_s"].tolist() == trace.arrival_s.tolist()
    assert (table["ttft_s"] > 0).all()
    assert set(table["first_instance"]) == {0, 1}
    iterations = live.run.iterations
    assert sorted(iterations["instance"]) == sorted(iteration.instance for iteration in live.iterations)
    for _, own in iterations.groupby("instance"):
        # One after the other, each as long as it took.
        assert (own["start_s"].to_numpy()[1:] >= own["end_s"].to_numpy()[:-1]).all()
        assert (own["end_s"] > own["start_s"]).all()
    decoded = (iterations["decode_requests"] * iterations["iterations"]).sum()
    assert decoded == (table["output_tokens"] - 1).sum()
    # The front end's router and coordinator, and the agents in their processes.
    found = replay_decisions(live.calls, policy_for("llumnix", trace, setup(instances=2)))
    assert found.routed == 12
    assert {call.address for call in live.calls if isinstance(call, Asked)} == {-1, 0, 1}
    assert found.differing == 0, found.first_difference


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_told():
    with pytest.raises(ExecutionError, match="instance 0 cannot start: 1 instances of 100000000 KV blocks"):
        realtime(make_trace([0], [4], [2]), ["random"], setup(instances=1, kv_blocks=10**8), CPU)
