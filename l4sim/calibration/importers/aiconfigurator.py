"""Profiles from ai-dynamo/aiconfigurator's tables of one GPU: where they lie, how they are read and fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from l4sim.calibration.all_reduces import all_reduces_of
from l4sim.calibration.datasheet import assumed_kernels, hopper_elementwise, host_json, scaled_kernels
from l4sim.calibration.fits.gemm import GemmPoints, fit_gemm
from l4sim.calibration.importers.importer import Importer
from l4sim.calibration.kernels import fit_kernel
from l4sim.calibration.points.all_reduces import read_all_reduces
from l4sim.calibration.points.attention import UniformPoints, UniformTables
from l4sim.calibration.points.tables import HALVES, distinct, read_points
from l4sim.calibration.profile_json import kernel_json, provenance_json
from l4sim.errors import InputError
from l4sim.specs.fitted import GRAPH_TIMED
from l4sim.specs.gpu import GPU

_SOURCE = "ai-dynamo/aiconfigurator @ 095f58a5, vLLM 0.24"

# Operator -> upstream's name, less its ending.
_UPSTREAM = {
    "gemm_bf16": "gemm_perf",
    "decode_attention": "generation_attention_perf",
    "prefill_attention": "context_attention_perf",
    "allreduce": "custom_allreduce_perf",
}
_ENDINGS = (".parquet", ".txt", ".csv", ".csv.gz")

_BF16: Mapping[str, Sequence[str]] = {
    "gemm_dtype": HALVES,
    "attn_dtype": HALVES,
    "kv_cache_dtype": (*HALVES, "auto"),
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
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"{folder}: expected is one table {stems[0]} or {stems[1]} ({', '.join(_ENDINGS)}), found {names}"
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


def read_gemm_points(path: Path) -> GemmPoints:
    """Read an aiconfigurator GEMM table: columns ``m, n, k`` and ``latency`` in ms; bf16 rows.

    Raises:
        InputError: as ``read_points``.
    """
    table = read_points(path, ("m", "n", "k", "latency"), among=_BF16)
    m, n, k = (table[name].astype(np.int64) for name in ("m", "n", "k"))
    return GemmPoints(m, n, k, table["latency"] * 1e-3)


def read_decode_points(path: Path) -> UniformPoints:
    """Read aiconfigurator's decode table: ``step`` tokens are cached, one more is computed; milliseconds.

    Raises:
        InputError: as ``read_points``.
    """
    return _uniform(path, "step", new_tokens=1)


def read_prefill_points(path: Path) -> UniformPoints:
    """Read aiconfigurator's prefill table: causal prompts of ``isl`` tokens; milliseconds.

    Raises:
        InputError: as ``read_points``.
    """
    return _uniform(path, "isl", new_tokens=0)


def _uniform(path: Path, length: str, new_tokens: int) -> UniformPoints:
    names = ("batch_size", "num_heads", "num_key_value_heads", length, "latency")
    columns = read_points(path, names, only={"head_dim": "128"}, among=_BF16)
    batch, heads, kv_heads, tokens = (columns[name].astype(np.int64) for name in names[:4])
    return UniformPoints(batch, heads, kv_heads, tokens + new_tokens, columns["latency"] * 1e-3)


def import_aiconfigurator(folder: Path, gpu: GPU, source: str = _SOURCE) -> dict[str, Any]:
    """Fit a GPU's profile to a folder of tables (see ``find_table``); its attention is taken to be FA3, on Hopper.

    ``source`` says where they come from. Returns what ``profile.json`` holds, held-out errors included.

    Raises:
        InputError: a table that is missing or cannot be read.
    """
    gemm, gemm_errors = fit_gemm(read_gemm_points(find_table(gpu, folder, "gemm_bf16")), gpu)
    own = read_all_reduces(find_table(gpu, folder, "allreduce"), gpu)
    points = UniformTables(
        read_decode_points(find_table(gpu, folder, "decode_attention")),
        read_prefill_points(find_table(gpu, folder, "prefill_attention")),
    )
    attention, attention_report = fit_kernel("fa3", points, gpu)
    elementwise, elementwise_source = hopper_elementwise()
    return {
        "name": gpu.name,
        "measured": True,
        "gpu": asdict(gpu),
        "provenance": provenance_json(source, "Apache-2.0 (measurements)", kernels=source.rpartition(", ")[2]),
        "default_kernel": "fa3",
        "kernels": {
            "fa3": kernel_json(
                attention,
                attention_report.to_json(),
                f"{source}: FlashAttention-3, uniform batches, head_dim 128",
            ),
            **scaled_kernels(gpu),
            **assumed_kernels(gpu),
        },
        "linear": {
            "coefficients": asdict(gemm),
            "errors": gemm_errors.to_json(),
            "source": f"{source}: torch.nn.functional.linear, bf16",
        },
        "elementwise": {"coefficients": asdict(elementwise), "source": elementwise_source},
        "operators": {"models": [], "source": "none"},
        "all_reduce": all_reduces_of(gpu, own, source),
        "host_overhead": host_json(GRAPH_TIMED),
    }


IMPORTER = Importer(
    "aiconfigurator",
    lambda path: path.is_dir() and is_aiconfigurator(path),
    lambda path, gpu, _given: import_aiconfigurator(path, gpu, describe_tables(gpu, path)),
)
