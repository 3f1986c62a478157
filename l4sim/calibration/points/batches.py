"""Attention measured batch by batch: any lengths, any heads, as the profiler writes ``attention.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.calibration.points.tables import number, read_rows
from l4sim.cost.attention.shape import Shape
from l4sim.errors import InputError

PREFILL_KERNEL = "flashinfer-prefill"
"""FlashInfer's prefill wrapper, which serves prompts beside either of its decode wrappers."""

_COLUMNS = ("kernel", "planned", "pattern", "heads", "kv_heads", "head_dim", "context_tokens", "chunks", "median_s")


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """One measured batch."""

    kernel: str
    planned: str
    """``graph`` or ``eager``: whether the kernel planned its split for CUDA graphs."""
    pattern: str
    """How the contexts are spread: ``uniform`` or the name of a mixture."""
    shape: Shape
    batch: Batch
    seconds: float


@dataclass(frozen=True, slots=True)
class MeasuredBatches:
    """Batches of any lengths, of one kernel or of several."""

    kind: ClassVar[str] = "measured batches"

    points: Sequence[BatchPoint]


def read_batch_points(path: Path, sms: int) -> list[BatchPoint]:
    """Read ``attention.csv``: one layer's attention per row, seconds.

    ``context_tokens`` and ``chunks`` hold the batch (see ``contexts_text`` and ``chunks_text``); ``sms`` are the GPU's.

    Raises:
        InputError: no such file, a missing column, or a value that cannot be read (with its line).
    """
    points = []
    for where, row in read_rows(path, _COLUMNS):
        heads, kv_heads, head_dim = (
            _count(row[name], f"{where}: {name}") for name in ("heads", "kv_heads", "head_dim")
        )
        contexts = np.array(read_contexts(row["context_tokens"], f"{where}: context_tokens"), dtype=np.int64)
        chunks = read_chunks(row["chunks"], f"{where}: chunks")
        points.append(
            BatchPoint(
                kernel=row["kernel"],
                planned=row["planned"],
                pattern=row["pattern"],
                shape=Shape(heads, kv_heads, head_dim, sms),
                batch=Batch(contexts, int(contexts.sum()), tuple(Prefill(*chunk) for chunk in chunks)),
                seconds=number(row["median_s"], f"{where}: median_s"),
            )
        )
    return points


def contexts_text(context_tokens: Iterable[int]) -> str:
    """Context lengths in the batch's order, runs of equal ones together: ``62*512 2*49664``; empty for none."""
    return " ".join(f"{len(list(run))}*{tokens}" for tokens, run in groupby(context_tokens))


def read_contexts(text: str, where: str) -> list[int]:
    """The lengths that ``contexts_text`` wrote.

    Raises:
        InputError: another text, naming ``where``.
    """
    contexts: list[int] = []
    for run in text.split():
        times, _, tokens = run.partition("*")
        contexts += [_count(tokens, where)] * _count(times, where)
    return contexts


def chunks_text(chunks: Iterable[Sequence[int]]) -> str:
    """Prefill chunks as new tokens on cached ones: ``2048+0 512+8192``; empty for none."""
    return " ".join(f"{chunk[0]}+{chunk[1]}" for chunk in chunks)


def read_chunks(text: str, where: str) -> list[tuple[int, int]]:
    """The chunks that ``chunks_text`` wrote, as ``(chunk_tokens, cached_tokens)``.

    Raises:
        InputError: another text, naming ``where``.
    """
    chunks = []
    for chunk in text.split():
        new, _, cached = chunk.partition("+")
        chunks.append((_count(new, where), _count(cached, where, least=0)))
    return chunks


def _count(text: str, where: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise InputError(f"{where} has {text!r}, accepted is a whole number >= {least}")
    return int(text)
