"""What holds for every simulation, whatever the trace, the engine's options, the policy, deaths and lost messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4sim.simulator import SimulationResult
from tests.simulator.conftest import MAX_MODEL_LEN, Case, cases, iterations, migrations, requests

ANY = st.one_of(cases(), cases(faults=True))
FINISHED, REJECTED, FAILED = 0, 1, 2


def every_request_ends_exactly_once_and_fails_only_if_no_instance_is_left(case: Case, result: SimulationResult) -> None:
    ended = requests(result)
    np.testing.assert_array_equal(ended["request_id"], np.arange(len(case.trace)))
    total = case.trace.prompt_tokens + case.trace.output_tokens
    too_long = total > MAX_MODEL_LEN
    too_large = -(-(total - 1) // case.engine.block_tokens) > case.engine.kv_blocks
    np.testing.assert_array_equal(ended["status"] == REJECTED, too_long | too_large)
    assert len(case.failures) == case.instances or not (ended["status"] == FAILED).any()


def tokens_generated_equal_tokens_asked(case: Case, result: SimulationResult) -> None:
    ended, segments = requests(result), iterations(result)
    if (ended["status"] == FAILED).any():
        return  # What they had got by then is recorded nowhere.
    finished = ended["status"] == FINISHED
    asked = ended["output_tokens"][finished].sum()
    # A prompt computed to its end yields one token, and so does each iteration of a decoding request.
    decoded = (segments["iterations"] * segments["decode_requests"]).sum()
    resumed = ended["preemptions"].sum()
    assert asked - finished.sum() - resumed <= decoded <= asked - finished.sum()
    if not resumed:
        cached = ended["cached_tokens"][finished].sum()
        assert segments["prefill_tokens"].sum() == ended["prompt_tokens"][finished].sum() - cached


def kv_blocks_in_use_never_exceed_the_total_and_return_to_zero(case: Case, result: SimulationResult) -> None:
    segments = iterations(result)
    assert (segments["kv_blocks_used"] <= case.engine.kv_blocks).all()
    assert (segments["kv_blocks_used"] >= 0).all()
    dead = [time_s for _, time_s in case.failures if time_s <= result.end_s]
    assert result.kv_blocks_held == (0,) * (case.instances - len(dead))


def batches_keep_to_the_engine_s_limits(case: Case, result: SimulationResult) -> None:
    segments = iterations(result)
    tokens = segments["decode_requests"] + segments["prefill_tokens"]
    assert (tokens <= case.engine.max_num_batched_tokens).all()
    assert (tokens >= 1).all()
    assert (segments["decode_requests"] + segments["prefill_requests"] <= case.engine.max_num_seqs).all()


def the_clock_never_goes_back(case: Case, result: SimulationResult) -> None:
    segments = iterations(result)
    assert (segments["end_s"] > segments["start_s"]).all()
    for instance in range(case.instances):
        mine = segments["instance"] == instance
        assert (segments["start_s"][mine][1:] >= segments["end_s"][mine][:-1]).all()


def no_token_comes_before_its_arrival_and_none_after_the_end(case: Case, result: SimulationResult) -> None:
    ended = requests(result)
    done = ended["status"] == FINISHED
    queue, ttft, e2e = (ended[name][done] for name in ("queue_s", "ttft_s", "e2e_s"))
    assert (queue >= 0).all()
    assert (ttft > queue).all()
    assert (e2e >= ttft).all()
    assert (ended["arrival_s"][done] + e2e <= result.end_s + 1e-9).all()


def a_turn_arrives_its_delay_after_the_turn_before_has_ended(case: Case, result: SimulationResult) -> None:
    ended = requests(result)
    end_s = ended["arrival_s"] + np.where(ended["status"] == FINISHED, ended["e2e_s"], 0.0)
    turns = np.flatnonzero(case.trace.after >= 0)
    turns = turns[ended["status"][case.trace.after[turns]] != FAILED]
    expected = end_s[case.trace.after[turns]] + case.trace.delay_s[turns]
    np.testing.assert_allclose(ended["arrival_s"][turns], expected, atol=1e-9)


def no_inter_token_latency_is_longer_than_the_longest_or_shorter_than_the_mean(
    case: Case, result: SimulationResult
) -> None:
    ended = requests(result)
    several = (ended["status"] == FINISHED) & (ended["output_tokens"] > 1)
    assert (ended["max_itl_s"][several] >= ended["tpot_s"][several] - 1e-9).all()
    span = ended["e2e_s"][several] - ended["ttft_s"][several]
    assert (ended["max_itl_s"][several] <= span + 1e-9).all()


PROPERTIES = (
    every_request_ends_exactly_once_and_fails_only_if_no_instance_is_left,
    tokens_generated_equal_tokens_asked,
    kv_blocks_in_use_never_exceed_the_total_and_return_to_zero,
    batches_keep_to_the_engine_s_limits,
    the_clock_never_goes_back,
    no_token_comes_before_its_arrival_and_none_after_the_end,
    a_turn_arrives_its_delay_after_the_turn_before_has_ended,
    no_inter_token_latency_is_longer_than_the_longest_or_shorter_than_the_mean,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY)
def test_every_property_holds_and_fast_forward_equals_stepping_through_every_iteration(case: Case):
    """Together, as most of the time goes into finding cases and simulating them."""
    fast = case.run()
    for holds in PROPERTIES:
        holds(case, fast)
    equal(fast, case.run(fast_forward=False))


def equal(fast: SimulationResult, slow: SimulationResult) -> None:
    one, two = requests(fast), requests(slow)
    for name in ("arrival_s", "queue_s", "ttft_s", "tpot_s", "max_itl_s", "e2e_s"):
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-9, err_msg=name)
    for name in ("cached_tokens", "migrations", "preemptions", "first_instance", "last_instance", "status"):
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    ours, theirs = migrations(fast), migrations(slow)
    for name in ("source", "destination", "stages", "status", "reason", "context_tokens", "copied_bytes"):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    np.testing.assert_allclose(ours["end_s"], theirs["end_s"], rtol=0, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANY)
def test_the_same_seed_gives_the_same_bytes(case: Case):
    one, two = case.run(), case.run()
    for name in ("requests", "iterations", "migrations"):
        assert getattr(one, name).numbers.tobytes() == getattr(two, name).numbers.tobytes()
