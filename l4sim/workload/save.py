"""Writing traces: as Mooncake JSON lines for other tools, or as the project's own parquet."""

from __future__ import annotations

import gzip
import io
import json
from os import PathLike
from pathlib import Path
from typing import Any

from l4sim.errors import InputError
from l4sim.workload import own_parquet
from l4sim.workload.formats.mooncake import MOONCAKE_BLOCK_TOKENS
from l4sim.workload.prefix_blocks import block_counts
from l4sim.workload.trace import PrefixBlocks, Trace

FORMATS = {"mooncake": (".jsonl", ".jsonl.gz"), "parquet": (".parquet",)}
"""Formats that are written, and what their files end with."""


def save_trace(trace: Trace, path: str | PathLike[str], to: str | None = None) -> None:
    """Write ``trace`` in the format ``to``, one of `FORMATS`; without it, the one that the file's suffix stands for.

    Raises `InputError` if there is no such format, or as `save_mooncake` and `save_parquet` do.
    """
    if to is None:
        to = next((name for name, suffixes in FORMATS.items() if Path(path).name.endswith(suffixes)), None)
        if to is None:
            raise InputError(f"{path}: a trace is written to a file that ends with .jsonl, .jsonl.gz or .parquet")
    if to not in FORMATS:
        raise InputError(f"unknown format to write '{to}'; known are {', '.join(FORMATS)}")
    (save_mooncake if to == "mooncake" else save_parquet)(trace, path)


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


def save_mooncake(trace: Trace, path: str | PathLike[str]) -> None:
    """Write ``trace`` as Mooncake JSON lines (.jsonl or .jsonl.gz): milliseconds, block ids for 512 tokens each.

    Closed-loop turns follow the Dynamo convention, ``session_id`` and ``delay`` after the session's row before. Finer
    block ids are joined to 512 tokens, which can only shorten shared prefixes. Request ids are not part of the format.

    Raises `InputError` if a turn follows another row than its session's last (parquet keeps that), if the blocks do not
    divide 512 tokens, or if the file cannot be written.
    """
    target = Path(path)
    if not target.name.endswith(FORMATS["mooncake"]):
        raise InputError(f"{target}: a Mooncake trace is written to a file that ends with .jsonl or .jsonl.gz")
    hash_ids = [[]] * len(trace) if trace.prefix is None else _mooncake_ids(trace, trace.prefix)
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
        lines.append(json.dumps(record, separators=(",", ":")) + "\n")
    _write(target, "".join(lines).encode())


def _mooncake_ids(trace: Trace, prefix: PrefixBlocks) -> list[list[int]]:
    """Each row's ids for blocks of 512 tokens: one per prefix of finer blocks, and new ones beyond the known ids."""
    if MOONCAKE_BLOCK_TOKENS % prefix.block_tokens:
        raise InputError(
            f"prefix blocks of {prefix.block_tokens} tokens do not divide Mooncake's {MOONCAKE_BLOCK_TOKENS}; "
            "expected .parquet"
        )
    joined = MOONCAKE_BLOCK_TOKENS // prefix.block_tokens
    known: dict[tuple[int, ...], int] = {}
    fresh = int(prefix.ids.max(initial=-1)) + 1 if joined == 1 else 0
    rows = []
    for row, blocks in enumerate(block_counts(trace.prompt_tokens, MOONCAKE_BLOCK_TOKENS).tolist()):
        fine = prefix.ids[prefix.offsets[row] : prefix.offsets[row + 1]].tolist()
        coarse: list[int] = fine if joined == 1 else []
        for start in range(0, len(fine) if joined > 1 else 0, joined):
            # The id before makes a block stand for all that precedes it.
            key = (coarse[-1] if coarse else -1, *fine[start : start + joined])
            if key not in known:
                known[key] = fresh
                fresh += 1
            coarse.append(known[key])
        if coarse:
            # Some formats give no id to the tokens behind the last full block; Mooncake does.
            unknown = blocks - len(coarse)
            coarse += range(fresh, fresh + unknown)
            fresh += unknown
        rows.append(coarse)
    return rows


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
