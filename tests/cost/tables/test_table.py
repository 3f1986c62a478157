"""Operators' tables: rows by kind and size, and what is read between and beyond the points."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from l4sim.cost.tables.stored import StoredTable, StoredTables, decoded, encoded, packed, read_tables
from l4sim.cost.tables.table import OperatorTable, along
from l4sim.errors import InputError

TABLE = OperatorTable(
    "gemm",
    {"dtype": np.array(["bfloat16", "fp8", "fp8"])},
    {"n": np.array([64, 64, 128]), "k": np.array([32, 32, 32])},
    {"tokens": np.array([1, 8, 64])},
    np.array([[1e-6, 2e-6, 9e-6], [1e-6, np.nan, 5e-6], [3e-6, 4e-6, 8e-6]]),
    "a test",
    "vLLM 0.25.0",
    {"between tokens": {"mape_pct": 1.0}},
)


def test_rows_are_told_by_kind_and_size() -> None:
    assert TABLE.where(dtype="fp8").sizes["n"].tolist() == [64, 128]
    assert len(TABLE.where(dtype=("bfloat16", "fp8"), n=64)) == 2
    assert len(TABLE.where(dtype="nvfp4")) == 0


def test_between_points_it_is_linear_and_below_the_first_constant() -> None:
    assert TABLE.along(0, [1, 4.5, 8, 36]) == pytest.approx([1e-6, 1.5e-6, 2e-6, 5.5e-6])
    assert along([8, 64], np.array([2e-6, 9e-6]), [1]) == pytest.approx([2e-6])


def test_beyond_the_last_it_grows_as_in_the_last_octave() -> None:
    seconds = along([1, 32, 64], np.array([1e-6, 5e-6, 9e-6]), [128, 64000])
    assert seconds == pytest.approx([17e-6, 9e-6 + (64000 - 64) * 4e-6 / 32])


def test_a_point_that_was_not_measured_is_bridged() -> None:
    assert TABLE.along(1, [8]) == pytest.approx([1e-6 + 4e-6 * 7 / 63])
    assert np.isnan(along([1, 2], np.array([np.nan, np.nan]), [1])).all()


def test_seconds_are_kept_to_a_fortieth_of_a_percent() -> None:
    seconds = np.exp(np.random.default_rng(0).uniform(np.log(2e-7), np.log(5.0), (20, 30)))
    seconds[3, 4] = np.nan
    assert decoded(encoded(seconds)) == pytest.approx(seconds, rel=2.6e-4, nan_ok=True)


def stored(content: bytes, texts: dict[str, dict[str, tuple[str, ...]]], sha256: str | None = None) -> StoredTables:
    about = StoredTable(texts["gemm"], ("n", "k"), {"tokens": (1, 8, 64)}, 8, {}, "a test", "vLLM 0.25.0", "H100")
    return StoredTables(sha256 or hashlib.sha256(content).hexdigest(), {"gemm": about})


def test_a_file_of_tables_gives_back_what_was_packed(tmp_path: Path) -> None:
    content, texts = packed({"gemm": TABLE})
    path = tmp_path / "tables.npz"
    path.write_bytes(content)
    found = read_tables(stored(content, texts), path)["gemm"]
    assert found.kinds["dtype"].tolist() == TABLE.kinds["dtype"].tolist()
    assert found.sizes["n"].tolist() == [64, 64, 128]
    assert found.seconds == pytest.approx(TABLE.seconds, rel=3e-4, nan_ok=True)
    assert packed({"gemm": TABLE})[0] == content


def test_another_file_than_the_profile_was_written_with_is_refused(tmp_path: Path) -> None:
    content, texts = packed({"gemm": TABLE})
    path = tmp_path / "tables.npz"
    with pytest.raises(InputError, match="cannot be read"):
        read_tables(stored(content, texts), path)
    path.write_bytes(content + b" ")
    with pytest.raises(InputError, match=r"not the file that profile\.json was written with"):
        read_tables(stored(content, texts), path)
