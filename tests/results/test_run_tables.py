"""A run's tables: the contract between the simulator and whatever reads its results."""

from __future__ import annotations

import dataclasses
from array import array

import pytest

from l4sim.policies.plan import Stage
from l4sim.results.run import BOUNDARIES, MIGRATIONS, frame_from_rows


def test_flat_numbers_become_typed_columns_in_the_contracts_order():
    flat = array("d", [20.0, 0.0, 8192.0, 40.0, 1.0, 32768.0])
    table = frame_from_rows("l4", flat, BOUNDARIES, {})
    assert list(table.columns) == ["policy", "time_s", "stage", "hi_tokens"]
    assert table.to_dict("records") == [
        {"policy": "l4", "time_s": 20.0, "stage": 0, "hi_tokens": 8192},
        {"policy": "l4", "time_s": 40.0, "stage": 1, "hi_tokens": 32768},
    ]
    assert table["stage"].dtype.kind == "i"


def test_a_text_column_is_looked_up_in_its_words():
    flat = array("d", [1, 0, 3, 4, 0.5, 0.5, 0.6, 0.7, 0.1, 900, 1e6, 2, 1, 1])
    words = {
        "request_id": ["r0", "r1"],
        "kind": ["handover", "rebalance"],
        "status": ["done", "refused"],
        "reason": ["", "no room"],
    }
    row = frame_from_rows("l4", flat, MIGRATIONS, words).iloc[0]
    assert (row["request_id"], row["kind"], row["status"], row["reason"]) == ("r1", "handover", "refused", "no room")
    assert (row["source"], row["destination"], row["copied_bytes"]) == (3, 4, 1_000_000)


def test_no_numbers_are_an_empty_table_with_all_columns():
    table = frame_from_rows("l4", array("d"), BOUNDARIES, {})
    assert len(table) == 0
    assert list(table.columns) == list(BOUNDARIES)


def test_a_broken_row_is_refused():
    with pytest.raises(ValueError, match="4 numbers are no whole number of rows of 3"):
        frame_from_rows("l4", array("d", [1, 2, 3, 4]), BOUNDARIES, {})


def test_a_table_with_other_columns_is_refused(make_tiny):
    run = make_tiny()
    with pytest.raises(ValueError, match="boundaries has the columns"):
        dataclasses.replace(run, boundaries=run.boundaries.drop(columns="stage"))


@pytest.mark.slow
def test_instances_are_counted_from_the_tables_and_the_plan_unless_told(make_tiny):
    stages = (Stage(0, 100, (0, 1)), Stage(100, 200, (5,)))
    segments = [{"instance": 3}]
    assert make_tiny().instance_count == 0
    assert make_tiny(iterations=segments).instance_count == 4
    assert make_tiny(requests=[{"last_instance": 4}], iterations=segments).instance_count == 5
    assert make_tiny(iterations=segments, plan=stages).instance_count == 6
    assert make_tiny(iterations=segments, plan=stages, instances=16).instance_count == 16
