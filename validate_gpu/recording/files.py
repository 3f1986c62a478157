"""What the files of a recording are called."""

from __future__ import annotations

LIVE, TRACE, PROFILE_FOLDER = "live.json", "trace.parquet", "profile"
"""Of the whole recording."""

BATCHES, COPIES, DECISIONS, PARTITION = "batches.parquet", "copies.parquet", "decisions.jsonl.gz", "partition.json"
"""Of each run."""
