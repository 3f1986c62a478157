"""Tables as flat arrays: what is added comes out again, and texts keep their numbers."""

from __future__ import annotations

from l4sim.records import (
    MIGRATION_STATUSES,
    BoundaryRow,
    MigrationRow,
    Table,
    column_types,
    migration_table,
)

MOVED = MigrationRow(3, "handover", 0, 1, 1.0, 1.5, 2.0, 2.5, 0.5, 120, 4096, 2, "done", "")


def test_rows_come_out_as_they_were_added():
    table = migration_table()
    refused = MOVED._replace(kind="rebalance", status="refused", reason="no room")
    table.extend([MOVED, refused])
    assert list(table) == [MOVED, refused]
    assert len(table) == 2


def test_known_words_have_the_same_numbers_in_every_table():
    table = migration_table()
    table.add(MOVED._replace(status="aborted", reason="it ended"))
    assert table.words["status"] == MIGRATION_STATUSES
    assert table.words["reason"] == ("", "it ended")
    assert table.numbers[table.columns.index("status")] == MIGRATION_STATUSES.index("aborted")


def test_columns_are_written_with_the_policy_and_the_request_s_name():
    assert column_types(BoundaryRow) == {"policy": str, "time_s": float, "stage": int, "hi_tokens": int}
    assert column_types(MigrationRow)["request_id"] is str
    assert list(column_types(MigrationRow)) == ["policy", *MigrationRow._fields]


def test_a_table_without_texts_is_its_numbers():
    table = Table(BoundaryRow)
    table.add(BoundaryRow(1.5, 0, 4096))
    assert table.numbers.tolist() == [1.5, 0.0, 4096.0]
