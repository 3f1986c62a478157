"""Writing traces: as Mooncake JSON lines for other tools, or as the project's own parquet."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from l4sim.errors import InputError
from l4sim.workload import own_parquet
from l4sim.workload.formats.mooncake import MOONCAKE_BLOCK_TOKENS
from l4sim.workload.prefix_blocks import block_counts
from l4sim.workload.prefix_runs import blocks_of
from l4sim.workload.statistics import reused_tokens
from l4sim.workload.trace import PrefixBlocks, Trace
from l4sim.workload.turns import join_turns

FORMATS = {"mooncake": (".jsonl", ".jsonl.gz"), "parquet": (".parquet",)}
"""Formats that are written, and what their files end with."""


def save_trace(
    trace: Trace, path: str | PathLike[str], to: str | None = None, *, block_tokens: int | None = None
) -> tuple[str, ...]:
    """Write ``trace`` in the format ``to``, one of `FORMATS`; without it, the one that the file's suffix stands for.

    ``block_tokens``: tokens per prefix-block id in Mooncake lines, 512 without. Returns what was lost, a line each.
    Raises `InputError` if there is no such format, or as `save_mooncake` and `save_parquet` do.
    """
    if to is None:
        to = next((name for name, suffixes in FORMATS.items() if Path(path).name.endswith(suffixes)), None)
        if to is None:
            raise InputError(f"{path}: a trace is written to a file that ends with .jsonl, .jsonl.gz or .parquet")
    if to not in FORMATS:
        raise InputError(f"unknown format to write '{to}'; known are {', '.join(FORMATS)}")
    if to == "mooncake":
        return save_mooncake(trace, path, block_tokens or MOONCAKE_BLOCK_TOKENS)
    if block_tokens is not None:
        raise InputError(f"{path}: parquet keeps prefixes as they are: a block size ({block_tokens}) is not accepted")
    save_parquet(trace, path)
    return ()


def save_parquet(trace: Trace, path: str | PathLike[str]) -> None:
    """Write ``trace`` to the project's own parquet, from which `load_trace` returns an equal one.

    Raises `InputError` if the file cannot be written.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    target = Path(path)
    if not target.name.endswith(FORMATS["parquet"]):
        raise InputError(f"{target}: a parquet trace is written to a file that ends with .parquet")
    buffer = io.BytesIO()
    pq.write_table(own_parquet.to_table(trace), buffer, compression="zstd")
    _write(target, buffer.getvalue())


def save_mooncake(
    trace: Trace, path: str | PathLike[str], block_tokens: int = MOONCAKE_BLOCK_TOKENS
) -> tuple[str, ...]:
    """Write ``trace`` as Mooncake JSON lines (.jsonl or .jsonl.gz): milliseconds, an id for each ``block_tokens``.

    Closed-loop turns follow the Dynamo convention, ``session_id`` and ``delay`` after the session's row before. Request
    ids are not part of the format. Where prefixes are shared in finer blocks than are written, some of what is shared
    is lost: a line about it is returned.

    Raises `InputError` if a turn follows another row than its session's last or the trace is a closed loop (parquet
    keeps both), for a block size below 1, or if the file cannot be written.
    """
    target = Path(path)
    if not target.name.endswith(FORMATS["mooncake"]):
        raise InputError(f"{target}: a Mooncake trace is written to a file that ends with .jsonl or .jsonl.gz")
    if block_tokens < 1:
        raise InputError(f"{target}: a prefix block must have at least 1 token, not {block_tokens}")
    if trace.concurrency is not None:
        raise InputError(
            f"{target}: a closed loop of {trace.concurrency} at a time, which Mooncake cannot say; expected .parquet"
        )
    hash_ids = [[]] * len(trace) if trace.prefix is None else _written_ids(trace, trace.prefix, block_tokens)
    last: dict[int, int] = {}
    lines = []
    for row, ids in enumerate(hash_ids):
        record: dict[str, Any] = {}
        session, after = int(trace.session[row]), int(trace.after[row])
        if session >= 0:
            record["session_id"] = str(session)
        if after < 0:
            record["timestamp"] = _milliseconds(float(trace.arrival_s[row]))
        elif last.get(session) != after or session < 0:
            raise InputError(
                f"{target}: request '{trace.request_id[row]}' follows another than the last of its session, "
                "which Mooncake cannot say; expected .parquet"
            )
        else:
            record["delay"] = _milliseconds(float(trace.delay_s[row]))
        last[session] = row
        record["input_length"] = int(trace.prompt_tokens[row])
        record["output_length"] = int(trace.output_tokens[row])
        record["hash_ids"] = ids
        if trace.priority is not None:
            record["priority"] = int(trace.priority[row])
        lines.append(json.dumps(record, separators=(",", ":")) + "\n")
    _write(target, "".join(lines).encode())
    return () if trace.prefix is None else _lost(trace, trace.prefix, block_tokens)


def _written_ids(trace: Trace, prefix: PrefixBlocks, block_tokens: int) -> list[list[int]]:
    """Each row's ids for blocks of ``block_tokens``: one per prefix, and new ones beyond what is known."""
    blocks = blocks_of(prefix, trace.prompt_tokens, block_tokens)
    fresh = int(blocks.ids.max(initial=-1)) + 1
    rows = []
    for row, count in enumerate(block_counts(trace.prompt_tokens, block_tokens).tolist()):
        ids = blocks.ids[blocks.offsets[row] : blocks.offsets[row + 1]].tolist()
        if ids:
            # Some formats give no id to the tokens behind the last full block; Mooncake does.
            unknown = count - len(ids)
            ids += range(fresh, fresh + unknown)
            fresh += unknown
        rows.append(ids)
    return rows


def _lost(trace: Trace, prefix: PrefixBlocks, block_tokens: int) -> tuple[str, ...]:
    """What blocks of so many tokens cannot say of shared prefixes, in a line; none if they say it all."""
    written = join_turns(replace(trace, prefix=blocks_of(prefix, trace.prompt_tokens, block_tokens))).prefix
    assert written is not None
    had, has = (int(reused_tokens(trace.prompt_tokens, each).sum()) for each in (prefix, written))
    if has >= had:
        return ()
    return (
        f"{had - has:,} of {had:,} prompt tokens that repeat an earlier prefix ({(had - has) / had:.1%}) are lost in "
        f"blocks of {block_tokens}: write finer ones with --block-size, or .parquet, which loses nothing",
    )


def _milliseconds(seconds: float) -> int | float:
    """Milliseconds, whole where they are, kept to the nanosecond."""
    milliseconds = round(seconds * 1000, 6)
    return int(milliseconds) if milliseconds.is_integer() else milliseconds


def _write(path: Path, data: bytes) -> None:
    # Without a time stamp in the gzip header, the same trace gives the same bytes.
    packed = gzip.compress(data, mtime=0) if path.suffix == ".gz" else data
    try:
        path.write_bytes(packed)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
