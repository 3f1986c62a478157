"""ai-dynamo/aiconfigurator's tables of one GPU: where they lie, under either of two names, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from l4sim.cost.points import distinct
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

# Operator -> upstream's name, less its ending.
_UPSTREAM = {
    "gemm_bf16": "gemm_perf",
    "decode_attention": "generation_attention_perf",
    "prefill_attention": "context_attention_perf",
    "allreduce": "custom_allreduce_perf",
}
_ENDINGS = (".parquet", ".txt", ".csv", ".csv.gz")

_HALVES = ("bfloat16", "float16", "bf16", "fp16", "half")
BF16: Mapping[str, Sequence[str]] = {
    "gemm_dtype": _HALVES,
    "attn_dtype": _HALVES,
    "kv_cache_dtype": (*_HALVES, "auto"),
    "allreduce_dtype": _HALVES,
    "window_size": ("0",),
}
"""Rows to keep where a table has such columns: two bytes per element, full attention."""


def is_aiconfigurator(folder: Path) -> bool:
    """Whether a folder holds such tables."""
    return any(folder.glob("aic_*")) or any(folder.glob("gemm_perf.*"))


def find_table(gpu: GPU, folder: Path, operator: str) -> Path:
    """The table of ``gemm_bf16``, ``decode_attention``, ``prefill_attention`` or ``allreduce``.

    It is named ``aic_<gpu>_*_<operator>`` or as upstream does (``gemm_perf``); its ending is .csv, .csv.gz, .txt or
    .parquet.

    Raises:
        InputError: no such table, or several.
    """
    stems = (f"aic_{gpu.name.replace('-', '_')}_*_{operator}", _UPSTREAM[operator])
    found = sorted(path for stem in stems for ending in _ENDINGS for path in folder.glob(stem + ending))
    if len(found) != 1:
        told = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"{folder}: expected is one table {stems[0]} or {stems[1]} ({', '.join(_ENDINGS)}), found {told}"
        )
    return found[0]


def describe_tables(gpu: GPU, folder: Path) -> str:
    """What engine the tables are of, as far as their columns tell."""
    path = find_table(gpu, folder, "gemm_bf16")
    try:
        versions = " ".join((*distinct(path, "framework"), *distinct(path, "version")))
    except InputError:
        versions = folder.resolve().name
    return f"ai-dynamo/aiconfigurator, {versions}"
