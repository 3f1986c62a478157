"""Names of KV blocks, held to the tokens themselves: every id spelled out, and hashed by blocks as vLLM does it."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from l4sim.runtime.block_keys import BlockKeys
from l4sim.workload.prefix_runs import chained
from l4sim.workload.trace import PrefixBlocks, Trace
from tests.workload.trace_strategies import alike

Tokens = list[tuple[object, ...]]


@st.composite
def spelled(draw: st.DrawFn) -> tuple[Trace, list[Tokens], int]:
    """A trace of few ids in blocks of any size, its requests' tokens, and a KV block size."""
    size, block_tokens = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    rows = draw(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=5))
    prompts, outputs, ids, tokens = [], [], [], []
    for number, row in enumerate(rows):
        prompt = draw(st.integers(max(1, (len(row) - 1) * size + 1), max(1, (len(row) + 1) * size)))
        output = draw(st.integers(1, 30))
        named = [(id_, at) for id_ in row for at in range(size)][:prompt]
        tokens.append([*named, *(("own", number, at) for at in range(len(named), prompt + output))])
        prompts.append(prompt)
        outputs.append(output)
        ids += row
    offsets = np.cumsum([0, *map(len, rows)])
    count = len(rows)
    trace = Trace(
        "spelled",
        tuple(map(str, range(count))),
        np.zeros(count),
        np.array(prompts),
        np.array(outputs),
        np.full(count, -1),
        np.full(count, -1),
        np.full(count, np.nan),
        PrefixBlocks(chained(np.array(ids, dtype=np.int64), offsets), offsets, size),
    )
    return trace, tokens, block_tokens


@given(spelled())
@settings(deadline=None, max_examples=100)
def test_two_blocks_have_one_name_where_they_and_all_before_them_hold_the_same_tokens(
    case: tuple[Trace, list[Tokens], int],
) -> None:
    trace, tokens, size = case
    keys = BlockKeys(trace, size)
    named = [list(chain(*keys.of(row))) for row in range(len(trace))]
    for one, names in enumerate(named):
        assert len(names) == len(set(names)) == len(tokens[one]) // size
        for other in range(one):
            blocks = alike(tokens[one], tokens[other]) // size
            assert names[:blocks] == named[other][:blocks]
            assert not set(names[blocks:]) & set(named[other][blocks:])


@given(spelled())
@settings(deadline=None, max_examples=100)
def test_runs_that_begin_alike_are_the_same_and_others_have_no_name_in_common(
    case: tuple[Trace, list[Tokens], int],
) -> None:
    trace, _, size = case
    keys = BlockKeys(trace, size)
    runs = [run for row in range(len(trace)) for run in keys.of(row)]
    for one in runs:
        assert len(one) > 0
        assert all(one.start == other.start or not set(one) & set(other) for other in runs)


@given(spelled())
@settings(deadline=None, max_examples=100)
def test_routers_see_the_names_of_whole_prefix_blocks_of_the_prompt(case: tuple[Trace, list[Tokens], int]) -> None:
    trace, tokens, size = case
    keys = BlockKeys(trace, size)
    assert trace.prefix is not None
    assert keys.id_tokens == max(trace.prefix.block_tokens // size, 1) * size
    for row in range(len(trace)):
        names = list(chain(*keys.of(row)))
        own = next((at for at, token in enumerate(tokens[row]) if token[0] == "own"), len(tokens[row]))
        known = min(own, int(trace.prompt_tokens[row]))
        stride = keys.id_tokens // size
        assert list(keys.prefix_ids(row)) == names[stride - 1 : known // keys.id_tokens * stride : stride]


def test_a_trace_without_ids_has_names_of_its_own_for_every_block() -> None:
    count = 2
    columns = (np.zeros(count), np.full(count, 40), np.full(count, 9), np.full(count, -1), np.full(count, -1))
    keys = BlockKeys(Trace("t", ("a", "b"), *columns, np.full(count, np.nan)), 16)
    assert (keys.of(0), keys.of(1)) == ((range(3),), (range(3, 6),))
    assert keys.prefix_ids(0) == ()
