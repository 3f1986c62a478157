"""Context limits: what is clipped or dropped, and that it is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.workload.synth.limits import limit_context
from l4sim.workload.synth.sessions import Sessions, converse
from l4sim.workload.trace import Trace


def open_loop(prompt: list[int], output: list[int]) -> Trace:
    n = len(prompt)
    none = np.full(n, -1)
    return Trace(
        name="t",
        request_id=tuple("abcdefgh"[:n]),
        arrival_s=np.arange(n) / 2,
        prompt_tokens=np.array(prompt),
        output_tokens=np.array(output),
        session=none,
        after=none,
        delay_s=np.full(n, np.nan),
        warnings=("from before",),
    )


def three_turns_and_one() -> Trace:
    """Prompts 10, 30, 50 of one session and 70 of another; every output has 10 tokens."""
    users = np.array([10, 10, 10, 70])
    return converse(
        "s",
        Sessions(2.0, 1.0, block_tokens=8),
        np.array([0.0, 1.0]),
        np.array([3, 1]),
        users,
        np.full(4, 10),
        np.ones(4),
    )


def test_a_trace_within_the_limit_stays_as_it_is() -> None:
    trace = open_loop([90, 50], [10, 10])
    assert limit_context(trace, 100, "clip") is trace
    assert limit_context(trace, 100, "drop") is trace


def test_clipping_shortens_the_prompt_before_the_output() -> None:
    clipped = limit_context(open_loop([90, 95, 1, 500], [10, 10, 300, 300]), 100, "clip")
    assert clipped.prompt_tokens.tolist() == [90, 90, 1, 1]
    assert clipped.output_tokens.tolist() == [10, 10, 99, 99]
    assert clipped.warnings == (
        "from before",
        "context limit of 100 tokens: the prompts of 2 and the outputs of 2 of 4 requests were clipped",
    )


def test_clipping_leaves_a_request_the_prefix_of_what_remains() -> None:
    trace = three_turns_and_one()
    clipped = limit_context(trace, 40, "clip")
    assert clipped.prompt_tokens.tolist() == [10, 30, 30, 30]
    assert clipped.prefix is not None
    assert trace.prefix is not None
    # The third prompt is the beginning of what it was, with another answer behind it.
    assert clipped.prefix.ids.tolist() == trace.prefix.ids.tolist() == [0, 0, 0, 1]
    assert clipped.prefix.ends is not None
    assert clipped.prefix.ends.tolist() == [20, 40, 30, 30]


def test_dropping_leaves_out_the_requests_that_do_not_fit() -> None:
    kept = limit_context(open_loop([90, 95, 1], [10, 10, 5]), 100, "drop")
    assert kept.request_id == ("a", "c")
    assert kept.arrival_s.tolist() == [0.0, 1.0]
    assert kept.output_tokens.tolist() == [10, 5]
    assert kept.warnings[-1] == "context limit of 100 tokens: 1 of 3 requests were dropped"


def test_dropping_a_turn_drops_the_turns_that_wait_for_it() -> None:
    trace = converse(
        "s",
        Sessions(2.0, 1.0, block_tokens=8),
        np.array([0.0, 1.0]),
        np.array([2, 2]),
        np.array([80, 1, 10, 20]),
        np.array([30, 5, 5, 5]),
        np.ones(4),
    )
    # A second prompt that would fit by itself: only its place behind the first one drops it.
    trace = replace(trace, prompt_tokens=np.array([80, 20, 10, 35]))
    kept = limit_context(trace, 100, "drop")
    assert kept.request_id == ("2", "3")
    assert kept.after.tolist() == [-1, 0]
    assert kept.session.tolist() == [1, 1]
    assert kept.prefix is not None
    assert trace.prefix is not None
    assert kept.prefix.ids.tolist() == trace.prefix.ids[trace.prefix.offsets[2] :].tolist()
    assert kept.warnings == (
        "context limit of 100 tokens: 2 of 4 requests were dropped, 1 of them because an earlier turn was",
    )


def test_the_end_of_a_session_is_dropped_where_it_outgrows_the_limit() -> None:
    kept = limit_context(three_turns_and_one(), 40, "drop")
    assert kept.prompt_tokens.tolist() == [10, 30]
    assert kept.after.tolist() == [-1, 0]


def test_a_limit_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="none of 1 requests fits"):
        limit_context(open_loop([90], [20]), 100, "drop")


@pytest.mark.parametrize(
    ("limit", "mode", "message"), [(1, "clip", ">= 2 tokens, not 1"), (9, "cut", "'clip' or 'drop'")]
)
def test_a_wrong_limit_or_mode_is_refused(limit: int, mode: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        limit_context(open_loop([90], [20]), limit, mode)  # type: ignore[arg-type]
