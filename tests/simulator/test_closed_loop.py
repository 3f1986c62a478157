"""A closed loop: so many requests are in flight, and the next is sent when one ends, in whichever way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4sim.cost.affine import AffineCost
from l4sim.engine.config import EngineConfig
from l4sim.policies.policy import Policy
from l4sim.policies.routers import RoundRobin
from l4sim.runtime.closed_loop import ClosedLoop
from l4sim.runtime.invariants import check_loop
from l4sim.simulator import InstanceSpec, Rules, SimulationResult, simulate_fleet
from l4sim.specs.events import Fail
from l4sim.specs.front_end import FrontEndCosts
from l4sim.specs.placement import Placement
from l4sim.workload.trace import Trace
from l4sim.workload.transform import with_concurrency
from tests.simulator.conftest import cases, make_trace, requests

CONFIG = EngineConfig(kv_blocks=100, max_model_len=200, max_num_seqs=4, max_num_batched_tokens=64, block_tokens=4)
FINISHED, REJECTED, FAILED = 0, 1, 2


def serve(trace: Trace, *, instances: int = 1, **rules) -> SimulationResult:
    spec = InstanceSpec(CONFIG, AffineCost(base_s=0.01), kv_bytes_per_token=1)
    events = [Fail(0, rules.pop("dies_s"))] if "dies_s" in rules else []
    return simulate_fleet(
        trace,
        Policy(RoundRobin()),
        [spec] * instances,
        Placement(instances),
        events=events,
        rules=Rules(validate=True, **rules),
    )


def spans(result: SimulationResult) -> tuple[np.ndarray, np.ndarray]:
    """When requests were sent and ended; those that were not finished ended at once."""
    ended = requests(result)
    took_s = np.where(ended["status"] == FINISHED, np.nan_to_num(ended["e2e_s"]), 0.0)
    return ended["arrival_s"], ended["arrival_s"] + took_s


def test_a_request_is_sent_when_one_ends() -> None:
    trace = with_concurrency(make_trace([0.0, 3.0, 9.0, 12.0, 90.0], [8] * 5, [5, 9, 20, 3, 3]), 2)
    sent_s, end_s = spans(serve(trace))
    assert sent_s[:2].tolist() == [0.0, 0.0]
    # 5 tokens end first, then 9; what took their places ends later.
    assert sent_s[2:].tolist() == [end_s[0], end_s[1], end_s[3]]


def test_latencies_count_from_the_sending() -> None:
    trace = with_concurrency(make_trace([0.0] * 3, [8] * 3, [5] * 3), 1)
    ended = requests(serve(trace))
    np.testing.assert_allclose(ended["ttft_s"], 0.01)
    np.testing.assert_allclose(ended["arrival_s"], [0.0, 0.05, 0.10])


def test_a_rejected_request_s_place_is_taken_at_once() -> None:
    trace = with_concurrency(make_trace([0.0] * 4, [8, 500, 500, 8], [5] * 4), 1)
    result = serve(trace)
    assert requests(result)["status"].tolist() == [FINISHED, REJECTED, REJECTED, FINISHED]
    np.testing.assert_allclose(requests(result)["arrival_s"], [0.0, 0.05, 0.05, 0.05])


def test_after_the_last_instance_has_died_all_that_is_sent_fails() -> None:
    trace = with_concurrency(make_trace([0.0] * 6, [8] * 6, [5] * 6), 2)
    ended = requests(serve(trace, dies_s=0.07, failure_detection_s=1.0))
    assert ended["status"].tolist() == [FINISHED] * 2 + [FAILED] * 4
    np.testing.assert_allclose(ended["arrival_s"][4:], 1.07)


def test_a_session_keeps_its_place_while_its_user_thinks() -> None:
    trace = make_trace([0.0, np.nan, 0.0], [8] * 3, [5] * 3, after=[-1, 0, -1], delay_s=[np.nan, 2.0, np.nan])
    ended = requests(serve(with_concurrency(trace, 1)))
    np.testing.assert_allclose(ended["arrival_s"], [0.0, 2.05, 2.10])


def test_a_client_sends_when_it_has_heard_the_last_token() -> None:
    trace = with_concurrency(make_trace([0.0] * 2, [8] * 2, [5] * 2), 1)
    sent_s, end_s = spans(serve(trace, front_end=FrontEndCosts(0.003, 0.0, 0.001)))
    assert sent_s[1] == end_s[0]
    assert end_s[0] > 0.053


def test_more_places_than_requests_send_all_at_once() -> None:
    sent_s, _ = spans(serve(with_concurrency(make_trace([0.0, 1.0], [8] * 2, [5] * 2), 10)))
    assert sent_s.tolist() == [0.0, 0.0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(cases(), cases(faults=True)), st.integers(1, 9))
def test_whatever_happens_places_are_filled_and_never_more(case, concurrency: int) -> None:
    case = replace(case, trace=with_concurrency(case.trace, concurrency))
    result, again = case.run(validate=True), case.run(validate=True)
    assert len(result.requests) == len(case.trace)
    assert result.requests.numbers.tobytes() == again.requests.numbers.tobytes()
    sent_s, end_s = spans(result)
    done = requests(result)["status"] == FINISHED
    for moment_s in sent_s[done]:
        # Ends at the very moment make room; an end is told as a sum, whose last bits differ.
        assert ((sent_s <= moment_s) & (end_s > moment_s + 1e-9) & done).sum() <= concurrency


@pytest.mark.parametrize("under_way", [1, 3])
def test_a_loop_that_sends_too_few_or_too_many_is_noticed(under_way: int) -> None:
    loop = ClosedLoop([-1] * 6, 2)
    loop.begin()
    check_loop(loop)
    loop.under_way = under_way
    with pytest.raises(AssertionError, match=f"R9: {under_way} sessions are under way and 4 wait, of 2 at a time"):
        check_loop(loop)
