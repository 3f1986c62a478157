"""Migrations on both sides: how many, how long, how long requests paused; and what real copies took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from l4sim.records import MIGRATION_STATUSES
from l4sim.results.run import Run
from validate_gpu.live_run import Copy

if TYPE_CHECKING:
    from pandas import DataFrame


class MigrationFigures(NamedTuple):
    """The migrations of one side under one policy; means per run, seconds over those done that copied KV."""

    done: float
    refused: float
    aborted: float
    blocks: float
    """Mean KV blocks that one of them moved."""
    mean_s: float
    """From its start to its end."""
    pause_mean_s: float
    """For which the request was in no batch."""
    pause_p99_s: float


class CopyBucket(NamedTuple):
    """Copies of about one size."""

    blocks: str
    copies: int
    equal: int
    """Those that arrived as they were, bit for bit."""
    mean_bytes: float
    median_s: float
    bytes_per_s: float
    """Of all their bytes over all their seconds."""


def migration_figures(runs: Sequence[Run], block_bytes: float) -> MigrationFigures:
    """Figures over the repeats of a run; ``block_bytes`` are those of one KV block as ``copied_bytes`` counts them."""
    tables = [run.migrations for run in runs]
    done, refused, aborted = (
        float(np.mean([(table["status"] == status).sum() for table in tables])) for status in MIGRATION_STATUSES
    )
    done_tables = [copied(table) for table in tables]
    blocks = np.concatenate([table["copied_bytes"].to_numpy() / block_bytes for table in done_tables])
    lasted_s = np.concatenate([(table["end_s"] - table["start_s"]).to_numpy() for table in done_tables])
    pause_s = np.concatenate([table["pause_s"].to_numpy() for table in done_tables])
    if not len(blocks):
        return MigrationFigures(done, refused, aborted, *[float("nan")] * 4)
    return MigrationFigures(
        done,
        refused,
        aborted,
        float(blocks.mean()),
        float(lasted_s.mean()),
        float(pause_s.mean()),
        float(np.percentile(pause_s, 99)),
    )


def copied(table: DataFrame) -> DataFrame:
    """The migrations that were done and copied KV: a request that had not begun is sent on as it is."""
    return table[(table["status"] == "done") & (table["copied_bytes"] > 0)]


def copies_by_size(copies: Sequence[Copy], block_tokens: int) -> list[CopyBucket]:
    """Real copies by powers of four of their blocks."""
    blocks = np.array([-(-copy.tokens // block_tokens) for copy in copies], dtype=np.int64)
    size_bytes = np.array([copy.size_bytes for copy in copies], dtype=np.float64)
    seconds = np.array([copy.seconds for copy in copies], dtype=np.float64)
    equal = np.array([copy.equal for copy in copies], dtype=np.bool_)
    buckets, low = [], 1
    while low <= blocks.max(initial=0):
        own = (blocks >= low) & (blocks < 4 * low)
        if own.any():
            buckets.append(
                CopyBucket(
                    f"{low:,} to {4 * low - 1:,}",
                    int(own.sum()),
                    int(equal[own].sum()),
                    float(size_bytes[own].mean()),
                    float(np.median(seconds[own])),
                    float(size_bytes[own].sum() / seconds[own].sum()),
                )
            )
        low *= 4
    return buckets
