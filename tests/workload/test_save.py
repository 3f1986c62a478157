from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from l4sim.errors import InputError
from l4sim.workload.load import load_trace
from l4sim.workload.prefix_runs import blocks_of
from l4sim.workload.save import save_mooncake, save_parquet, save_trace
from l4sim.workload.statistics import describe, reused_tokens
from l4sim.workload.synth.sessions import Sessions, converse
from l4sim.workload.trace import PrefixBlocks, Trace
from l4sim.workload.transform import with_concurrency
from tests.workload.trace_strategies import traces

ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def assert_equal(one: Trace, other: Trace) -> None:
    for field in fields(Trace):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, PrefixBlocks):
            assert left.block_tokens == right.block_tokens
            np.testing.assert_array_equal(left.ids, right.ids)
            np.testing.assert_array_equal(left.offsets, right.offsets)
            np.testing.assert_array_equal(left.ends, right.ends)
        elif isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


def alone(prompt_tokens: list[int], prefix: PrefixBlocks | None = None) -> Trace:
    rows = len(prompt_tokens)
    nothing = np.full(rows, np.nan)
    return Trace(
        name="t",
        request_id=tuple(map(str, range(rows))),
        arrival_s=np.arange(rows) * 0.25,
        prompt_tokens=np.array(prompt_tokens),
        output_tokens=np.full(rows, 7),
        session=np.full(rows, -1),
        after=np.full(rows, -1),
        delay_s=nothing,
        prefix=prefix,
    )


@pytest.mark.slow
@given(traces())
@ANY_FOLDER
def test_parquet_loses_nothing(tmp_path: Path, trace: Trace) -> None:
    save_parquet(trace, tmp_path / "trace.parquet")
    assert_equal(load_trace(tmp_path / "trace.parquet"), trace)


@pytest.mark.slow
@given(traces(block_tokens=512))
@ANY_FOLDER
def test_mooncake_keeps_lengths_sessions_links_and_blocks(tmp_path: Path, trace: Trace) -> None:
    save_mooncake(trace, tmp_path / "trace.jsonl")
    again = load_trace(tmp_path / "trace.jsonl")
    # Rows are told apart by what the format keeps of them: it has no request ids, and sorts by arrival.
    first_s = np.nanmin(trace.arrival_s)
    np.testing.assert_allclose(np.sort(again.arrival_s), np.sort(trace.arrival_s - first_s), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.sort(again.delay_s), np.sort(trace.delay_s), rtol=0, atol=1e-6)
    assert sorted(zip(again.prompt_tokens, again.output_tokens, strict=True)) == sorted(
        zip(trace.prompt_tokens, trace.output_tokens, strict=True)
    )
    assert (again.after >= 0).sum() == (trace.after >= 0).sum()
    written = [json.loads(line)["hash_ids"] for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    ids = [id_ for row in written for id_ in row]
    if trace.prefix is None:
        assert again.prefix is None
        assert not ids
    else:
        pairs = set(zip(trace.prefix.ids.tolist(), ids, strict=True))
        assert len(pairs) == len(set(ids)) == len(set(trace.prefix.ids.tolist()))


def test_mooncake_is_written_in_milliseconds_with_dynamos_sessions(tmp_path: Path) -> None:
    trace = replace(
        alone([600, 10, 700], PrefixBlocks(np.array([5, 6, 9, 5, 6]), np.array([0, 2, 3, 5]), 512)),
        arrival_s=np.array([0.0, 0.0015, np.nan]),
        session=np.array([4, -1, 4]),
        after=np.array([-1, -1, 0]),
        delay_s=np.array([np.nan, np.nan, 2.5]),
    )
    save_trace(trace, tmp_path / "trace.jsonl")
    assert [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()] == [
        {"session_id": "4", "timestamp": 0, "input_length": 600, "output_length": 7, "hash_ids": [0, 1]},
        {"timestamp": 1.5, "input_length": 10, "output_length": 7, "hash_ids": [2]},
        {"session_id": "4", "delay": 2500, "input_length": 700, "output_length": 7, "hash_ids": [0, 1]},
    ]


def test_finer_blocks_are_joined_to_512_tokens(tmp_path: Path) -> None:
    # Blocks of 128: rows 0 and 1 share six of them, a block of 512 and half of one; row 2 has row 1's second quadruple
    # behind another first one, which is another prefix; 50 tokens of row 1 have no id at all.
    ids = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7, 8], [0, 2, 3, 4, 5, 6, 7, 8]]
    prefix = PrefixBlocks(np.concatenate(ids), np.array([0, 6, 14, 22]), 128)
    lost = save_mooncake(alone([768, 1074, 1024], prefix), tmp_path / "trace.jsonl")
    written = [json.loads(line)["hash_ids"] for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    # The first row's second block is the beginning of the second row's.
    assert written == [[0, 1], [0, 1, 4], [2, 3]]
    assert lost == ()


def test_what_coarser_blocks_cannot_say_is_told(tmp_path: Path) -> None:
    # Three requests share 1,000 tokens, 62 blocks of 16 and a part; of these one whole block of 512.
    rows = [[*range(62), 100 + row] for row in range(3)]
    trace = alone([1008] * 3, PrefixBlocks(np.concatenate(rows), np.arange(4) * 63, 16))
    assert save_mooncake(trace, tmp_path / "trace.jsonl", 16) == ()
    assert save_trace(trace, tmp_path / "trace.parquet") == ()
    (told,) = save_mooncake(trace, tmp_path / "trace.jsonl")
    assert told.startswith("960 of 1,984 prompt tokens that repeat an earlier prefix (48.4%) are lost in blocks of 512")
    assert "--block-size" in told


@pytest.mark.parametrize("block_tokens", [16, 48, 512])
def test_blocks_of_any_size_are_written_and_found_again_by_lengths(tmp_path: Path, block_tokens: int) -> None:
    sessions = Sessions(3.0, 1.0, system_tokens=960)
    users = np.array([700, 30, 2000, 90, 41])
    trace = converse("s", sessions, np.zeros(2), np.array([3, 2]), users, np.full(5, 300), np.ones(5))
    lost = save_mooncake(trace, tmp_path / "trace.jsonl", block_tokens)
    again = load_trace(tmp_path / "trace.jsonl")
    assert again.prefix is not None
    assert trace.prefix is not None
    assert again.prefix.block_tokens == block_tokens
    reused = [reused_tokens(each.prompt_tokens, each.prefix).sum() for each in (again, trace)]
    # 960 tokens are 20 blocks of 48, or 60 of 16, but one of 512: 448 tokens of the second session's are lost.
    assert reused[1] - reused[0] == (448 if block_tokens == 512 else 0)
    assert bool(lost) == (block_tokens == 512)


@pytest.mark.slow
def test_joined_blocks_share_as_much_as_the_fine_ones_between_turns(shared_traces: Path, tmp_path: Path) -> None:
    fine = load_trace(shared_traces / "weka_raw_sample.jsonl.gz")
    save_mooncake(fine, tmp_path / "weka.jsonl.gz")
    joined = load_trace(tmp_path / "weka.jsonl.gz")
    np.testing.assert_array_equal(joined.after, fine.after)
    np.testing.assert_allclose(joined.delay_s, fine.delay_s, rtol=0, atol=1e-9)
    reuse = describe(fine).prefix_reuse
    joined_reuse = describe(joined).prefix_reuse
    assert reuse is not None
    assert joined_reuse is not None
    # Where a turn leaves out the end of the one before it, coarse blocks do not tell.
    assert reuse - 0.01 < joined_reuse < reuse + 0.0001
    coarse = blocks_of(fine.prefix, fine.prompt_tokens, 512)
    assert reused_tokens(fine.prompt_tokens, coarse).sum() < reuse * fine.prompt_tokens.sum()


def test_the_same_trace_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.jsonl.gz", "two.jsonl.gz", "one.parquet", "two.parquet"):
        save_trace(alone([1, 2]), tmp_path / name)
    for suffix in (".jsonl.gz", ".parquet"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_mooncake_refuses_turns_that_follow_another_than_the_sessions_last(tmp_path: Path) -> None:
    branches = replace(
        alone([1, 1, 1]),
        arrival_s=np.array([0.0, np.nan, np.nan]),
        session=np.array([0, 0, 0]),
        after=np.array([-1, 0, 0]),
        delay_s=np.array([np.nan, 1.0, 1.0]),
    )
    with pytest.raises(InputError, match=r"request '2' follows another than the last of its session.*\.parquet"):
        save_mooncake(branches, tmp_path / "trace.jsonl")


def test_block_sizes_that_no_file_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 token, not 0"):
        save_mooncake(alone([10]), tmp_path / "trace.jsonl", 0)
    with pytest.raises(InputError, match=r"parquet keeps prefixes as they are: a block size \(16\) is not accepted"):
        save_trace(alone([10]), tmp_path / "trace.parquet", block_tokens=16)


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("trace.csv", None, "ends with .jsonl, .jsonl.gz or .parquet"),
        ("trace.csv", "mooncake", "ends with .jsonl or .jsonl.gz"),
        ("trace.jsonl", "parquet", "ends with .parquet"),
        ("trace.jsonl", "vidur", "unknown format to write 'vidur'; known are mooncake, parquet"),
        ("absent/trace.jsonl", None, "cannot be written"),
    ],
)
def test_files_that_cannot_be_written_are_refused(name: str, to: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        save_trace(alone([1]), tmp_path / name, to)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("prompt_tokens", 0, "row 2, field 'prompt_tokens': 0 is not accepted in a trace"),
        ("output_tokens", -3, "row 2, field 'output_tokens': -3"),
        ("after", 1, "row 2, field 'after': 1"),
        ("arrival_s", -1.0, "row 2, field 'arrival_s': -1.0"),
        ("delay_s", 1.0, "row 2, field 'delay_s': 1.0"),
    ],
)
def test_own_parquet_that_was_changed_into_no_trace_is_refused(
    column: str, value: float, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "trace.parquet"
    save_parquet(alone([1, 1]), path)
    table = pq.read_table(path)
    place = table.column_names.index(column)
    changed = pa.array([table.column(column)[0].as_py(), value])
    pq.write_table(table.set_column(place, column, changed), path)
    with pytest.raises(InputError, match=message):
        load_trace(path)


def test_own_parquet_takes_no_reading_options(tmp_path: Path) -> None:
    save_parquet(alone([1]), tmp_path / "trace.parquet")
    assert len(load_trace(tmp_path / "trace.parquet", format="l4sim")) == 1
    for options in ({"format": "azure"}, {"time_unit": "ms"}):
        with pytest.raises(InputError, match="own parquet takes neither a format nor a time unit"):
            load_trace(tmp_path / "trace.parquet", **options)


def test_parquet_keeps_a_closed_loop_and_mooncake_refuses_it(tmp_path: Path) -> None:
    trace = with_concurrency(alone([5, 6, 7]), 2)
    save_parquet(trace, tmp_path / "trace.parquet")
    assert_equal(load_trace(tmp_path / "trace.parquet"), trace)
    with pytest.raises(
        InputError, match=r"a closed loop of 2 at a time, which Mooncake cannot say; expected \.parquet"
    ):
        save_mooncake(trace, tmp_path / "trace.jsonl")
