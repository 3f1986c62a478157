import math

import pandas as pd
import pytest

from l4sim.results.run import MIGRATIONS
from validate_gpu.comparison.migrations import copies_by_size, migration_figures
from validate_gpu.live_run import Copy


class OfMigrations:
    """A run of which only the migrations matter."""

    def __init__(self, rows):
        values = {name: [row.get(name, 0) for row in rows] for name in MIGRATIONS}
        self.migrations = pd.DataFrame(values)


def test_durations_and_pauses_are_those_of_migrations_that_copied():
    done = {"status": "done", "copied_bytes": 640, "start_s": 1.0, "end_s": 1.5, "pause_s": 0.1}
    longer = done | {"copied_bytes": 1280, "end_s": 2.5, "pause_s": 0.3}
    forwarded = done | {"copied_bytes": 0, "end_s": 9.0}
    refused = {"status": "refused", "start_s": math.nan, "end_s": 2.0, "pause_s": math.nan}
    found = migration_figures([OfMigrations([done, refused, forwarded]), OfMigrations([longer])], block_bytes=64)
    assert (found.done, found.refused, found.aborted) == (1.5, 0.5, 0)
    assert found.blocks == pytest.approx(15)
    assert found.mean_s == pytest.approx(1.0)
    assert found.pause_mean_s == pytest.approx(0.2)
    assert found.pause_p99_s == pytest.approx(0.298)


def test_without_migrations_there_are_counts_alone():
    found = migration_figures([OfMigrations([])], block_bytes=64)
    assert found.done == 0
    assert math.isnan(found.pause_mean_s)


def test_copies_are_put_together_by_blocks():
    sizes = ((1, 1.0, True), (48, 3.0, False), (49, 7.0, True))
    copies = [Copy(0, 0, 1, tokens, 100 * tokens, seconds, equal) for tokens, seconds, equal in sizes]
    small, large = copies_by_size(copies, block_tokens=16)
    # 1 token is a block, 48 are three; 49 are four.
    assert (small.blocks, small.copies, small.equal, small.mean_bytes) == ("1 to 3", 2, 1, 2450)
    assert small.bytes_per_s == pytest.approx(4900 / 4.0)
    assert (large.blocks, large.median_s) == ("4 to 15", 7.0)


def test_no_copies_make_no_rows():
    assert copies_by_size([], block_tokens=16) == []
