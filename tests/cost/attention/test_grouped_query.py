"""Grouped-query attention of all kinds: windows, gates, unequal keys and values, KV in eight bits; by tables or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.grouped_query import grouped_query, nearest_row, varied_query
from l4sim.cost.attention.part import AttentionPart, AttentionSetting
from l4sim.cost.profile import load_profile
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.dtypes import Dtypes
from tests.cost.attention.recorded_batches import NONE, decodes

FULL = GroupedQuery(32, 8, 128)
WINDOW = VariedQuery(32, 8, 128, 128, window_tokens=128)
BATCH, LENGTH = np.array([1, 64]), np.array([128, 4096])
FORMATS = ("bfloat16", "bfloat16", "fp8", "bfloat16")
WINDOWS = (0, 128, 0, 1024)


def table(name: str, *seconds: float) -> OperatorTable:
    """Rows of full attention, a window of 128, full attention with KV in FP8, a window of 1,024: a time for each."""
    kinds = {"dtype": np.array(["bfloat16"] * 4), "kv_dtype": np.array(FORMATS)}
    sizes = {
        "heads": np.full(4, 32),
        "kv_heads": np.full(4, 8),
        "head_dim": np.full(4, 128),
        "window": np.array(WINDOWS),
    }
    values = np.array(seconds)[:, None, None] * np.ones((4, 2, 2))
    return OperatorTable(name, kinds, sizes, {"batch": BATCH, "length": LENGTH}, values)


@pytest.fixture
def setting() -> AttentionSetting:
    tables = {
        "decode_attention": table("decode_attention", 8e-6, 2e-6, 5e-6, 4e-6),
        "prefill_attention": table("prefill_attention", 80e-6, 20e-6, 50e-6, 40e-6),
    }
    return AttentionSetting(replace(load_profile("h200-sxm"), tables=tables), 4096, 1, "fa3")


def seconds(part: AttentionPart, *contexts: int) -> float:
    return part.model.attention_s(decodes(*contexts))


def test_equal_lengths_take_what_was_measured(setting: AttentionSetting) -> None:
    for contexts in ([128], [4096] * 64):
        assert seconds(grouped_query(setting, FULL, Dtypes()), *contexts) == pytest.approx(8e-6)
        assert seconds(varied_query(setting, WINDOW, Dtypes()), *contexts) == pytest.approx(2e-6)
        assert seconds(grouped_query(setting, FULL, Dtypes(kv="fp8")), *contexts) == pytest.approx(5e-6)
    prompt = Batch(NONE, 0, (Prefill(4096, 0),))
    assert varied_query(setting, WINDOW, Dtypes()).model.attention_s(prompt) == pytest.approx(20e-6)


def test_what_has_no_row_of_its_own_is_estimated_by_the_nearest(setting: AttentionSetting) -> None:
    assert varied_query(setting, WINDOW, Dtypes()).measured
    assert not varied_query(setting, replace(WINDOW, window_tokens=512), Dtypes()).measured
    assert not varied_query(setting, replace(WINDOW, chunked=True), Dtypes()).measured
    # No window was timed with KV in FP8: it is as full attention of what it sees.
    eight = varied_query(setting, WINDOW, Dtypes(kv="fp8"))
    assert not eight.measured
    assert seconds(eight, 4096) == seconds(eight, 128) == pytest.approx(5e-6)


def test_of_unequal_lengths_a_window_knows_nothing(setting: AttentionSetting) -> None:
    part = varied_query(setting, WINDOW, Dtypes())
    assert seconds(part, *[200] * 60, 100_000) == pytest.approx(seconds(part, *[1836] * 61), rel=0.01)
    full = grouped_query(setting, FULL, Dtypes())
    assert seconds(full, *[200] * 60, 100_000) > 1.05 * seconds(full, *[1836] * 61)


def test_a_gate_changes_nothing_and_narrower_values_count_half(setting: AttentionSetting) -> None:
    gated = VariedQuery(32, 8, 128, 128, gate_dim=128)
    assert seconds(varied_query(setting, gated, Dtypes()), 4096) == pytest.approx(8e-6)
    assert varied_query(setting, gated, Dtypes()).measured
    assert not varied_query(setting, VariedQuery(32, 8, 192, 128), Dtypes()).measured


def test_an_index_over_blocks_has_no_seconds(setting: AttentionSetting) -> None:
    with pytest.raises(InputError, match="no seconds of block-sparse attention"):
        varied_query(setting, VariedQuery(32, 8, 128, 128, index_heads=4, index_dim=128), Dtypes())


def test_without_tables_a_window_is_the_kernels_own_split_of_what_it_sees() -> None:
    setting = AttentionSetting(load_profile("h200-sxm"), 4096, 1, "fa3")
    full, window = grouped_query(setting, FULL, Dtypes()), varied_query(setting, WINDOW, Dtypes())
    assert seconds(window, *[4096] * 64) == seconds(full, *[128] * 64)
    assert (full.measured, window.measured) == (True, False)
    with pytest.raises(InputError, match="profile h200-sxm: kernel fa3 has no seconds of KV in fp8"):
        grouped_query(setting, FULL, Dtypes(kv="fp8"))


def test_a_format_that_was_not_timed_is_refused() -> None:
    one = table("decode_attention", 1, 1, 1, 1)
    with pytest.raises(InputError, match="no seconds of KV in fp8"):
        nearest_row(one.where(kv_dtype="bfloat16"), "fp8", 32, 8, 128, 0)
