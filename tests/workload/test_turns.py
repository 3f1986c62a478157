"""Sessions' turns joined to the token, held to conversations whose tokens are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4sim.runtime.block_keys import BlockKeys
from l4sim.workload.load import load_trace
from l4sim.workload.prefix_runs import blocks_of
from l4sim.workload.statistics import reused_tokens
from l4sim.workload.trace import Trace
from l4sim.workload.turns import join_turns
from tests.workload.trace_strategies import alike

Turn = tuple[int, list[tuple[object, ...]], int]
"""Session, the prompt's tokens, and those of the answer."""

LONG = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    """Sessions that grow turn by turn, interleaved, all behind one system prompt."""
    system = [("system", at) for at in range(draw(st.integers(0, 25)))]
    said = {session: list(system) for session in range(draw(st.integers(1, 3)))}
    turns: list[Turn] = []
    for session in draw(st.lists(st.sampled_from(sorted(said)), min_size=1, max_size=8)):
        number = len(turns)
        said[session] += [("user", number, at) for at in range(draw(st.integers(1, 30)))]
        output = draw(st.integers(1, 30))
        turns.append((session, list(said[session]), output))
        said[session] += [("answer", number, at) for at in range(output)]
    return turns


def tokens_of(turn: Turn, number: int) -> list[tuple[object, ...]]:
    return [*turn[1], *(("answer", number, at) for at in range(turn[2]))]


def written(turns: list[Turn], path: Path, size: int, *, partial: bool) -> Trace:
    """The turns as a Mooncake file, an id for the content of each block and all before it, as publishers make them."""
    lines = []
    numbers: dict[tuple[tuple[object, ...], ...], int] = {}
    for at, (session, tokens, output) in enumerate(turns):
        full = len(tokens) // size
        blocks = [tuple(tokens[: size * (block + 1)]) for block in range(full + (partial and len(tokens) % size > 0))]
        ids = [numbers.setdefault(block, len(numbers)) for block in blocks]
        times = {"timestamp": 1000 * at, "session_id": str(session)}
        lines.append({**times, "input_length": len(tokens), "output_length": output, "hash_ids": ids})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_trace(path, trace_block_size=size if numbers else None)


@given(turns=conversations(), size=st.sampled_from([4, 8, 16]), partial=st.booleans())
@LONG
def test_a_turn_shares_with_the_one_before_it_all_of_its_prompt_and_answer(
    tmp_path: Path, turns: list[Turn], size: int, partial: bool
) -> None:
    trace = written(turns, tmp_path / "trace.jsonl", size, partial=partial)
    keys = BlockKeys(trace, 1)
    last: dict[int, int] = {}
    for later, (session, tokens, _) in enumerate(turns):
        row = last.get(session)
        last[session] = later
        if row is None or trace.prefix is None:
            continue
        # Where ids name full blocks alone, what is behind the later prompt's last full one is not told.
        told = len(tokens) if partial else len(tokens) // size * size
        one, other = ([key for run in keys.of(at) for key in run] for at in (row, later))
        assert alike(one, other) >= min(len(turns[row][1]) + turns[row][2], told)


@given(turns=conversations(), size=st.sampled_from([4, 8, 16]), partial=st.booleans(), kv=st.integers(1, 10))
@LONG
def test_no_two_requests_share_more_than_they_have_in_common(
    tmp_path: Path, turns: list[Turn], size: int, partial: bool, kv: int
) -> None:
    trace = written(turns, tmp_path / "trace.jsonl", size, partial=partial)
    keys = BlockKeys(trace, kv)
    names = [[key for run in keys.of(row) for key in run] for row in range(len(trace))]
    for one in range(len(turns)):
        for other in range(one):
            same = alike(tokens_of(turns[one], one), tokens_of(turns[other], other))
            assert alike(names[one], names[other]) <= same // kv


def rows_of(tmp_path: Path, *rows: tuple[str | None, int, int, list[int]]) -> Trace:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": at, "input_length": prompt, "output_length": output, "hash_ids": ids}
        | ({} if session is None else {"session_id": session})
        for at, (session, prompt, output, ids) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_trace(path)


def reused(trace: Trace) -> list[int]:
    assert trace.prefix is not None
    return reused_tokens(trace.prompt_tokens, trace.prefix).tolist()


def test_ids_of_no_session_share_whole_blocks(tmp_path: Path) -> None:
    assert reused(rows_of(tmp_path, (None, 600, 100, [1, 2]), (None, 1500, 9, [1, 3, 4]))) == [0, 512]


def test_a_turn_too_short_for_the_answer_shares_the_prompt(tmp_path: Path) -> None:
    assert reused(rows_of(tmp_path, ("a", 600, 100, [1, 2]), ("a", 650, 9, [1, 3]))) == [0, 600]


def test_a_turn_that_differs_in_a_full_block_shares_what_its_ids_say(tmp_path: Path) -> None:
    assert reused(rows_of(tmp_path, ("a", 1100, 100, [1, 2, 3]), ("a", 1500, 9, [1, 4, 5]))) == [0, 512]


def test_of_two_turns_that_go_on_differently_one_has_the_answer(tmp_path: Path) -> None:
    # Both go on from the first prompt's 600 tokens; their blocks differ before the 700 answered ones end.
    trace = rows_of(tmp_path, ("a", 600, 700, [1, 2]), ("a", 1400, 9, [1, 3, 4]), ("a", 1500, 9, [1, 5, 6]))
    assert reused(trace) == [0, 1300, 600]


def test_a_subagent_between_two_turns_does_not_part_them(tmp_path: Path) -> None:
    turns = (("a", 600, 100, [1, 2]), ("a", 550, 9, [7, 8]), ("a", 1500, 9, [1, 3, 4]))
    assert reused(rows_of(tmp_path, *turns)) == [0, 0, 700]


def test_of_earlier_turns_the_one_counts_that_most_is_repeated_of(tmp_path: Path) -> None:
    # A subagent between them has the same first block, and no more.
    turns = (("a", 1100, 100, [1, 2, 3]), ("a", 600, 9, [1, 9]), ("a", 2000, 9, [1, 2, 4, 5]))
    assert reused(rows_of(tmp_path, *turns)) == [0, 512, 1200]


def test_turns_that_fill_no_block_are_believed_and_told(tmp_path: Path) -> None:
    trace = rows_of(tmp_path, ("a", 100, 50, [1]), ("a", 200, 9, [2]))
    assert reused(trace) == [0, 150]
    assert trace.warnings == (
        "1 of 2 prompts are taken to repeat the turn before, which fills no block of 512 tokens that would tell",
    )


@pytest.mark.slow
def test_coarse_ids_of_recorded_sessions_share_what_fine_ones_do(shared_traces: Path) -> None:
    fine = load_trace(shared_traces / "weka_raw_sample.jsonl.gz")
    assert fine.prefix is not None
    share = reused_tokens(fine.prompt_tokens, fine.prefix).sum() / fine.prompt_tokens.sum()
    for size in (256, 512, 1024):
        coarse = replace(fine, prefix=blocks_of(fine.prefix, fine.prompt_tokens, size))
        assert coarse.prefix is not None
        blocks = reused_tokens(fine.prompt_tokens, coarse.prefix).sum() / fine.prompt_tokens.sum()
        joined = join_turns(coarse).prefix
        assert joined is not None
        assert share - blocks > 0.002
        together = reused_tokens(fine.prompt_tokens, joined).sum() / fine.prompt_tokens.sum()
        assert together == pytest.approx(share, abs=2e-4)
