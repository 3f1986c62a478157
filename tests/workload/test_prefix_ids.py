"""Ids of prefix blocks as files have them: of any kind, repeated, of any size; each case as the cache then sees it."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.runtime.block_keys import BlockKeys
from l4sim.workload.load import load_trace
from l4sim.workload.trace import Trace

FNV = 14695981039346656037


def trace_of(tmp_path: Path, rows: list[tuple[int, int, Any]], **options: Any) -> Trace:
    """A Mooncake file of prompts, answers and ids, a second apart."""
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 1000 * at, "input_length": prompt, "output_length": output, "hash_ids": ids}
        for at, (prompt, output, ids) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_trace(path, **options)


def cached(trace: Trace, block_tokens: int = 16) -> list[int]:
    """Prompt tokens that each request finds if all before it have ended and nothing was ever evicted."""
    keys = BlockKeys(trace, block_tokens)
    seen: set[int] = set()
    found = []
    for row, prompt in enumerate(trace.prompt_tokens.tolist()):
        own = list(chain(*keys.of(row)))
        hits = next((at for at, key in enumerate(own) if key not in seen), len(own))
        found.append(min(hits, (prompt - 1) // block_tokens) * block_tokens)
        seen.update(own)
    return found


def test_an_id_twice_in_a_prompt_is_another_block_behind_another_prefix(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, [(1100, 2, [7, 7, 100]), (1100, 2, [7, 7, 101]), (600, 2, [7, 9])])
    assert cached(trace) == [0, 1024, 512]


def test_the_same_ids_in_another_order_share_nothing(tmp_path: Path) -> None:
    assert cached(trace_of(tmp_path, [(1024, 2, [1, 2]), (1024, 2, [2, 1])])) == [0, 0]


def test_the_same_ids_in_the_middle_share_nothing(tmp_path: Path) -> None:
    assert cached(trace_of(tmp_path, [(1536, 2, [1, 2, 3]), (1024, 2, [2, 3])])) == [0, 0]


def test_a_block_filled_in_part_is_the_beginning_of_the_full_one(tmp_path: Path) -> None:
    # 600 tokens are 37 blocks of 16 and a part, as vLLM has them; all 1,024 but the last block come from the second.
    assert cached(trace_of(tmp_path, [(600, 2, [1, 2]), (1024, 2, [1, 2]), (1024, 2, [1, 2])])) == [0, 592, 1008]


@pytest.mark.parametrize(
    ("one", "other"),
    [(-1, -2), (FNV, FNV + 1), (2**70, -(2**70)), ("ab12", "ab13"), ("0xffffffffffffffff", "0xfffffffffffffffe")],
    ids=["negative", "64 bits", "more than 64 bits", "hexadecimal", "with a prefix"],
)
def test_ids_may_be_any_numbers_and_texts(tmp_path: Path, one: int | str, other: int | str) -> None:
    trace = trace_of(tmp_path, [(1024, 2, [one, other]), (1024, 2, [one, one]), (1024, 2, [one, other])])
    assert cached(trace) == [0, 512, 1008]


@pytest.mark.parametrize("ids", [[1.5], [None], [[1]], [True], "ab12", 3])
def test_what_is_no_list_of_ids_is_refused(tmp_path: Path, ids: Any) -> None:
    with pytest.raises(InputError, match=r"line 1, field 'hash_ids'.*expected a list of whole numbers or texts"):
        trace_of(tmp_path, [(10, 2, ids)])


@pytest.mark.parametrize("size", [16, 48, 64, 1024])
def test_how_many_tokens_an_id_stands_for_is_told_by_lengths(tmp_path: Path, size: int) -> None:
    # Prompts of 4 and 3 ids, the last in part; of 48 tokens the lengths leave no other size.
    rows = [(4 * size, 20, [1, 2, 3, 100]), (2 * size + 1, 20, [1, 2, 4]), (4 * size, 20, [1, 2, 3, 101])]
    trace = trace_of(tmp_path, rows)
    assert trace.prefix is not None
    assert trace.prefix.block_tokens == size
    assert trace.warnings[0].startswith(f"hash_ids stand for {size} tokens each")
    assert cached(trace) == [0, 2 * size, 3 * size]


def test_blocks_of_512_are_not_doubted_where_they_fit(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, [(10, 2, [1]), (20, 2, [1])])
    assert trace.prefix is not None
    assert (trace.prefix.block_tokens, trace.warnings) == (512, ())


def test_ids_of_full_blocks_alone_are_accepted_at_any_size(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, [(70, 2, [1, 2, 3, 4]), (50, 2, [1, 2, 3]), (33, 2, [1, 2])])
    assert cached(trace) == [0, 48, 32]


def test_the_block_size_may_be_given(tmp_path: Path) -> None:
    rows = [(100, 2, [1]), (100, 2, [1])]
    assert cached(trace_of(tmp_path, rows, trace_block_size=128)) == [0, 96]
    with pytest.raises(InputError, match=r"has 1 ids; expected 6 to 7 of 16 tokens each"):
        trace_of(tmp_path, rows, trace_block_size=16)


def test_a_block_size_is_refused_where_there_are_no_ids_or_the_file_says_it(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,1\n")
    with pytest.raises(InputError, match=r"vidur has no ids of prefix blocks, a block size \(16\) is not accepted"):
        load_trace(path, trace_block_size=16)
    path = tmp_path / "weka.jsonl"
    request = {"t": 0, "in": 64, "out": 1, "hash_ids": [1]}
    path.write_text(json.dumps({"id": "w", "block_size": 64, "requests": [request]}))
    with pytest.raises(InputError, match="weka has prefix blocks of its own size"):
        load_trace(path, trace_block_size=16)
