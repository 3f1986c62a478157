"""The one entry point: extents, determinism, independent streams."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.errors import InputError
from l4sim.workload.synth import Constant, Coupled, Fixed, Lognormal, Poisson, Sessions, synthesize
from l4sim.workload.trace import Trace

LENGTHS = Coupled(Lognormal(6.0, 1.0), Lognormal(5.0, 1.0), 0.3)


def same(a: Trace, b: Trace) -> bool:
    columns = ("arrival_s", "prompt_tokens", "output_tokens", "session", "after", "delay_s")
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in columns)


@pytest.mark.slow
@given(st.integers(1, 200), st.booleans(), st.integers(0, 2**63))
def test_so_many_requests_come_out_as_asked_for_and_the_seed_decides_them(n: int, in_sessions: bool, seed: int) -> None:
    sessions = Sessions(3.0, 5.0, system_tokens=100, block_tokens=16) if in_sessions else None
    trace = synthesize(LENGTHS, Poisson(2.0), requests=n, seed=seed, sessions=sessions)
    assert len(trace) == len(trace.request_id) == len(set(trace.request_id)) == n
    assert same(trace, synthesize(LENGTHS, Poisson(2.0), requests=n, seed=seed, sessions=sessions))


def test_another_seed_gives_another_trace() -> None:
    first, second = (synthesize(LENGTHS, Poisson(2.0), requests=50, seed=seed) for seed in (1, 2))
    assert not np.array_equal(first.arrival_s, second.arrival_s)
    assert not np.array_equal(first.prompt_tokens, second.prompt_tokens)


def test_without_sessions_requests_are_open_loop_and_share_nothing() -> None:
    trace = synthesize(LENGTHS, Constant(4.0), duration_s=2.0, seed=0)
    assert trace.arrival_s.tolist() == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert (trace.after == -1).all()
    assert (trace.session == -1).all()
    assert np.isnan(trace.delay_s).all()
    assert trace.prefix is None
    assert trace.warnings == ()


def test_a_duration_bounds_the_starts_of_sessions_and_turns_multiply_the_requests() -> None:
    trace = synthesize(LENGTHS, Constant(100.0), duration_s=20.0, seed=0, sessions=Sessions(4.0, 5.0))
    assert np.nanmax(trace.arrival_s) == 20.0
    # 2000 sessions of 4 turns on average, each with variance 12.
    assert abs(len(trace) - 8000) <= 5 * math.sqrt(2000 * 12)


def test_arrivals_and_lengths_draw_from_independent_streams() -> None:
    poisson = synthesize(LENGTHS, Poisson(2.0), requests=50, seed=1)
    constant = synthesize(LENGTHS, Constant(2.0), requests=50, seed=1)
    fixed = synthesize(Coupled(Fixed(7), Fixed(8)), Poisson(2.0), requests=50, seed=1)
    assert np.array_equal(poisson.prompt_tokens, constant.prompt_tokens)
    assert np.array_equal(poisson.arrival_s, fixed.arrival_s)


def test_the_context_limit_is_applied_and_told() -> None:
    trace = synthesize(Coupled(Fixed(100), Fixed(50)), Constant(1.0), requests=3, seed=0, limit_tokens=120)
    assert trace.prompt_tokens.tolist() == [70, 70, 70]
    assert "the prompts of 3" in trace.warnings[0]
    with pytest.raises(InputError, match="none of 3 requests fits"):
        synthesize(
            Coupled(Fixed(100), Fixed(50)), Constant(1.0), requests=3, seed=0, limit_tokens=120, over_limit="drop"
        )


def test_wrong_extents_and_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="either a number of requests or a duration"):
        synthesize(LENGTHS, Poisson(1.0), seed=0)
    with pytest.raises(InputError, match="seed must be an integer >= 0, not -1"):
        synthesize(LENGTHS, Poisson(1.0), requests=1, seed=-1)
    with pytest.raises(InputError, match=r"nothing arrives within 0\.5 s"):
        synthesize(LENGTHS, Constant(1.0), duration_s=0.5, seed=0)
