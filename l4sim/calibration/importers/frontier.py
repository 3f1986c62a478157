"""Attention as Vidur and Frontier profile it: FlashInfer's wrappers, one CSV per GPU and model, times in ms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.calibration.datasheet import roofline_profile
from l4sim.calibration.importers.importer import Importer
from l4sim.calibration.kernels import fit_kernel
from l4sim.calibration.points.batches import PREFILL_KERNEL, BatchPoint, MeasuredBatches
from l4sim.calibration.points.tables import number, read_rows
from l4sim.calibration.profile_json import kernel_json
from l4sim.cost.attention.flashinfer import CUDA_CORE
from l4sim.cost.attention.shape import Shape
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

_DECODE_MS, _PREFILL_MS = "time_stats.attn_decode.median", "time_stats.attn_prefill.median"
_COLUMNS = (
    _DECODE_MS,
    _PREFILL_MS,
    "n_embd",
    "n_q_head",
    "n_kv_head",
    "num_tensor_parallel_workers",
    "batch_size",
    "prefill_chunk_size",
    "kv_cache_size",
    "is_prefill",
    "attention_backend",
)
# Frontier's batches of prompts and decodes together; Vidur has none.
_TRULY_MIXED = "is_true_mixed_batch"
_FLASHINFER = "FLASHINFER"


def import_frontier(path: Path, gpu: GPU) -> dict[str, Any]:
    """Turn an attention CSV of Vidur or Frontier into a profile: attention fitted, everything else from the datasheet.

    Decodes are of the CUDA-core wrapper, prompts of the prefill wrapper, each in its own launch. The CSV does not tell
    whether the decodes were planned for CUDA graphs: they are taken to be.

    Raises:
        InputError: a missing column, a value that cannot be read (with its line), another backend, or too few points.
    """
    points = read_frontier(path, gpu.sms)
    coefficients, report = fit_kernel(CUDA_CORE, MeasuredBatches(points), gpu)
    assumed = roofline_profile(gpu)
    source = f"Vidur or Frontier attention CSV, {path.name}: {len(points)} batches"
    return {
        **assumed,
        "provenance": {**assumed["provenance"], "source": f"{source}; the rest ours, from the datasheet"},
        "default_kernel": CUDA_CORE,
        "kernels": {**assumed["kernels"], CUDA_CORE: kernel_json(coefficients, report.to_json(), source)},
    }


def read_frontier(path: Path, sms: int) -> list[BatchPoint]:
    """The measured batches: one for each launch, decodes (``flashinfer-cuda``) or prompts.

    Raises:
        InputError: as ``import_frontier``.
    """
    return [point for where, row in read_rows(path, _COLUMNS) for point in _points(where, row, sms)]


def _points(where: str, row: Mapping[str, str], sms: int) -> Iterator[BatchPoint]:
    backend = row["attention_backend"].rpartition(".")[2]
    if backend != _FLASHINFER:
        raise InputError(f"{where}: attention_backend is {row['attention_backend']}, accepted is {_FLASHINFER}")
    heads, kv_heads, ranks, width = (
        _count(row, name, where) for name in ("n_q_head", "n_kv_head", "num_tensor_parallel_workers", "n_embd")
    )
    shape = Shape(heads // ranks, max(1, kv_heads // ranks), width // heads, sms)
    if row.get(_TRULY_MIXED) == "True":
        queries, cached, contexts = (
            _list(row[name], f"{where}: {name}")
            for name in ("prefill_seq_lens", "prefill_kv_cache_sizes", "decode_kv_cache_sizes")
        )
        if len(queries) != len(cached):
            raise InputError(f"{where}: {len(queries)} prefill_seq_lens for {len(cached)} prefill_kv_cache_sizes")
        prefills = tuple(Prefill(*chunk) for chunk in zip(queries, cached, strict=True))
    else:
        batch, context = _count(row, "batch_size", where), _count(row, "kv_cache_size", where, least=0)
        if row["is_prefill"] == "True":
            prefills, contexts = (Prefill(_count(row, "prefill_chunk_size", where), context),) * batch, []
        else:
            prefills, contexts = (), [context] * batch
    if contexts:
        seconds = number(row[_DECODE_MS], f"{where}: {_DECODE_MS}") * 1e-3
        # The cache's size is without the token being decoded.
        lengths = np.array(contexts, dtype=np.int64) + 1
        pattern = "uniform" if len(set(contexts)) == 1 else "mixed"
        yield BatchPoint(CUDA_CORE, "graph", pattern, shape, Batch(lengths, int(lengths.sum())), seconds)
    if prefills:
        seconds = number(row[_PREFILL_MS], f"{where}: {_PREFILL_MS}") * 1e-3
        nothing = np.empty(0, dtype=np.int64)
        yield BatchPoint(PREFILL_KERNEL, "eager", "uniform", shape, Batch(nothing, 0, prefills), seconds)


def _count(row: Mapping[str, str], name: str, where: str, least: int = 1) -> int:
    value = number(row[name], f"{where}: {name}", or_zero=least == 0)
    if not value.is_integer():
        raise InputError(f"{where}: {name} is {row[name]!r}, accepted is a whole number >= {least}")
    return int(value)


def _list(text: str, where: str) -> list[int]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, int) and value >= 0 for value in values):
        raise InputError(f"{where} is {text!r}, accepted is a list of whole numbers such as [64, 64]")
    return values


IMPORTER = Importer("Vidur or Frontier", Path.is_file, lambda path, gpu, _given: import_frontier(path, gpu))
