"""Measured batches as text, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.calibration.points.batches import (
    chunks_text,
    contexts_text,
    read_batch_points,
    read_chunks,
    read_contexts,
)
from l4sim.errors import InputError

HEADER = "kernel,planned,pattern,heads,kv_heads,head_dim,context_tokens,chunks,median_s,spread_s\n"


def test_runs_of_equal_lengths_stand_together_in_order() -> None:
    assert contexts_text([512, 512, 512, 9000, 512]) == "3*512 1*9000 1*512"


@pytest.mark.slow
@given(st.lists(st.integers(1, 3), max_size=20), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=4))
def test_what_was_written_is_read_back(contexts: list[int], chunks: list[tuple[int, int]]) -> None:
    assert read_contexts(contexts_text(contexts), "here") == contexts
    assert read_chunks(chunks_text(chunks), "here") == chunks


def test_a_row_is_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "attention.csv"
    path.write_text(HEADER + "flashinfer-tensor,graph,one-long,32,8,128,2*16 1*700,64+128 32+0,2.5e-5,1e-6\n")
    (point,) = read_batch_points(path, sms=132)
    assert (point.kernel, point.planned, point.pattern, point.seconds) == (
        "flashinfer-tensor",
        "graph",
        "one-long",
        2.5e-5,
    )
    assert (point.shape.heads, point.shape.kv_heads, point.shape.head_dim, point.shape.sms) == (32, 8, 128, 132)
    assert point.batch.decode_context_tokens.tolist() == [16, 16, 700]
    assert point.batch.decode_context_sum == 732
    assert [chunk[:2] for chunk in point.batch.prefills] == [(64, 128), (32, 0)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("k,graph,uniform,32,8,128,2x16,,1e-5,0", r"line 2: context_tokens has '', accepted is a whole number >= 1"),
        ("k,graph,uniform,32,8,128,0*16,,1e-5,0", r"line 2: context_tokens has '0', accepted is a whole number >= 1"),
        ("k,graph,uniform,32,8,128,,64-1,1e-5,0", r"line 2: chunks has '64-1', accepted is a whole number >= 1"),
        ("k,graph,uniform,32,0,128,2*16,,1e-5,0", r"line 2: kv_heads has '0', accepted is a whole number >= 1"),
        ("k,graph,uniform,32,8,128,2*16,,fast,0", r"line 2: median_s is 'fast', accepted is a number above 0"),
        ("k,graph,uniform,32", r"line 2: kv_heads is missing, the row ends before it"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "attention.csv"
    path.write_text(HEADER + row + "\n")
    with pytest.raises(InputError, match=message):
        read_batch_points(path, sms=132)
