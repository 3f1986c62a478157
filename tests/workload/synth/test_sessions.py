"""Sessions: growing prompts, closed-loop links, shared prefix ids."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.errors import InputError
from l4sim.workload.prefix_runs import blocks_of
from l4sim.workload.synth.sessions import Sessions, converse
from l4sim.workload.trace import Trace
from tests.workload.trace_strategies import alike


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Sessions, Trace, list[int], list[int]]:
    """Sessions of any shape, with the user tokens and the outputs that they were made from."""
    turns = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    rows = sum(turns)
    user = draw(st.lists(st.integers(1, 40), min_size=rows, max_size=rows))
    output = draw(st.lists(st.integers(1, 40), min_size=rows, max_size=rows))
    sessions = Sessions(2.0, 1.0, system_tokens=draw(st.integers(0, 50)), block_tokens=draw(st.integers(1, 16)))
    trace = converse(
        "t",
        sessions,
        np.arange(len(turns)) * 1.5,
        np.array(turns),
        np.array(user),
        np.array(output),
        np.full(rows, 2.0),
    )
    return sessions, trace, user, output


def ids_of(trace: Trace, row: int) -> list[int]:
    """Ids of the prompt's blocks, the last perhaps partial."""
    assert trace.prefix is not None
    blocks = blocks_of(trace.prefix, trace.prompt_tokens, trace.prefix.block_tokens)
    return blocks.ids[blocks.offsets[row] : blocks.offsets[row + 1]].tolist()


def shared_ids(trace: Trace, a: int, b: int) -> int:
    return alike(ids_of(trace, a), ids_of(trace, b))


def test_two_sessions_worked_by_hand() -> None:
    trace = converse(
        "two",
        Sessions(2.0, 1.0, system_tokens=6, block_tokens=4),
        starts_s=np.array([1.0, 5.0]),
        turns=np.array([2, 1]),
        user_tokens=np.array([3, 2, 2]),
        output_tokens=np.array([4, 9, 1]),
        think_s=np.array([0.0, 7.0, 0.0]),
    )
    assert trace.prompt_tokens.tolist() == [9, 15, 8]
    assert trace.session.tolist() == [0, 0, 1]
    assert trace.after.tolist() == [-1, 0, -1]
    assert np.array_equal(trace.arrival_s, [1.0, np.nan, 5.0], equal_nan=True)
    assert np.array_equal(trace.delay_s, [np.nan, 7.0, np.nan], equal_nan=True)
    # 9 tokens are 2 full blocks and a part; 15 are 3 and a part; 8 are 2. One block of 4 is all system prompt.
    assert [len(ids_of(trace, row)) for row in range(3)] == [3, 4, 2]
    # The part is the beginning of the next turn's third block.
    assert shared_ids(trace, 0, 1) == 3
    assert shared_ids(trace, 0, 2) == 1


@pytest.mark.slow
@given(conversations())
def test_a_prompt_is_the_previous_prompt_and_answer_and_new_tokens(
    case: tuple[Sessions, Trace, list[int], list[int]],
) -> None:
    sessions, trace, user, output = case
    for row, previous in enumerate(trace.after):
        before = sessions.system_tokens if previous < 0 else trace.prompt_tokens[previous] + output[previous]
        assert trace.prompt_tokens[row] == before + user[row]
    assert trace.output_tokens.tolist() == output


@pytest.mark.slow
@given(conversations())
def test_only_first_turns_have_an_arrival_and_the_others_a_delay(
    case: tuple[Sessions, Trace, list[int], list[int]],
) -> None:
    _, trace, _, _ = case
    first = trace.after < 0
    assert first.sum() == trace.session.max() + 1
    assert np.array_equal(np.isnan(trace.arrival_s), ~first)
    assert np.array_equal(np.isnan(trace.delay_s), first)
    assert (np.diff(trace.arrival_s[first]) >= 0).all()
    followers = np.flatnonzero(~first)
    assert (trace.after[followers] < followers).all()
    assert (trace.session[trace.after[followers]] == trace.session[followers]).all()


@pytest.mark.slow
@given(conversations())
def test_prefix_ids_are_shared_exactly_as_far_as_prompts_agree(
    case: tuple[Sessions, Trace, list[int], list[int]],
) -> None:
    sessions, trace, _, _ = case
    block = sessions.block_tokens
    rows = [ids_of(trace, row) for row in range(len(trace))]
    for a, ids in enumerate(rows):
        assert len(ids) == math.ceil(trace.prompt_tokens[a] / block)
        for b in range(a):
            same = trace.session[a] == trace.session[b]
            shorter = min(trace.prompt_tokens[a], trace.prompt_tokens[b])
            # A session's shorter prompt is the beginning of its longer one, down to a last block that it fills in part.
            blocks = math.ceil(shorter / block) if same else sessions.system_tokens // block
            assert alike(ids, rows[b]) == blocks


@pytest.mark.slow
@given(conversations())
def test_a_prefix_id_always_stands_at_one_place_behind_one_predecessor(
    case: tuple[Sessions, Trace, list[int], list[int]],
) -> None:
    _, trace, _, _ = case
    seen: dict[int, list[int]] = {}
    for row in range(len(trace)):
        ids = ids_of(trace, row)
        for i, block_id in enumerate(ids):
            assert seen.setdefault(block_id, ids[:i]) == ids[:i]


def test_turns_are_geometric_and_think_times_exponential_around_their_means() -> None:
    n, sessions = 20_000, Sessions(turns_mean=4.0, think_s_mean=30.0)
    turns = sessions.turns(np.random.default_rng(1), n)
    think_s = sessions.think_s(np.random.default_rng(1), n)
    # A geometric with mean 1/p has variance (1 - p) / p² = 12 here; an exponential's deviation is its mean.
    assert abs(turns.mean() - 4.0) <= 5 * math.sqrt(12 / n)
    assert abs((turns == 1).mean() - 0.25) <= 5 * math.sqrt(0.25 * 0.75 / n)
    assert abs(think_s.mean() - 30.0) <= 5 * 30.0 / math.sqrt(n)


@pytest.mark.slow
@given(st.integers(1, 200), st.floats(1.0, 20.0), st.integers(0, 2**32))
def test_turns_of_requests_add_up_to_the_requests(requests: int, turns_mean: float, seed: int) -> None:
    turns = Sessions(turns_mean, 1.0).turns_of_requests(np.random.default_rng(seed), requests)
    assert turns.sum() == requests
    assert (turns >= 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turns_mean": 0.5}, "mean turns must be >= 1"),
        ({"think_s_mean": -1.0}, "think time must be >= 0"),
        ({"think_s_mean": math.nan}, "think time must be >= 0"),
        ({"system_tokens": -1}, "system prompt must have >= 0"),
        ({"block_tokens": 0}, "block size must be >= 1"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sessions(**{"turns_mean": 2.0, "think_s_mean": 1.0} | change)  # type: ignore[arg-type]
