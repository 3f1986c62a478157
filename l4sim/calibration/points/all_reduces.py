"""Tables of all-reduces that ai-dynamo's collector timed in an engine: ``custom_allreduce_perf``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.calibration.fits.all_reduce import fit_all_reduce
from l4sim.calibration.points.tables import HALVES, distinct, read_points
from l4sim.cost.communication import REGIMES, AllReduceTable, Regime
from l4sim.errors import InputError
from l4sim.specs.dtypes import BF16_BYTES
from l4sim.specs.gpu import GPU

_KERNELS: dict[Regime, str] = {"captured": "vLLM_custom_graph", "eager": "vLLM_custom_eager"}
_LEAST_MESSAGES = 3


class Messages(NamedTuple):
    """Messages of one number of GPUs in one regime, sizes ascending; each of shape ``[messages]``."""

    size_bytes: NDArray[np.float64]
    seconds: NDArray[np.float64]


def read_all_reduces(path: Path, gpu: GPU) -> list[AllReduceTable]:
    """Curves of every number of GPUs and regime in a table of ``kernel_source, num_gpus, message_size, latency`` (ms).

    ``message_size`` counts elements of bf16. Rows that beat one crossing of the GPU's link are left out. The collector
    copies the message before each eager all-reduce, which an engine does not: at the largest message, where both
    regimes run the same NCCL kernel, they differ by that copy, and it is taken off in proportion to the bytes. What is
    left of small eager messages is the host's launch.

    Source: ai-dynamo/aiconfigurator, collector/network/collect_all_reduce.py, `benchmark_vllm_allreduce`.

    Raises:
        InputError: as ``read_points``; too few messages.
    """
    engine, device = _engine(path), " ".join(distinct(path, "device"))
    return list(_tables(path, gpu, engine, device))


def _tables(path: Path, gpu: GPU, engine: str, device: str) -> Iterator[AllReduceTable]:
    found = {regime: read_messages(path, regime) for regime in REGIMES if _KERNELS[regime] in _sources(path)}
    if not found:
        raise InputError(f"{path}: no rows with kernel_source {' or '.join(_KERNELS.values())}")
    for regime, by_gpus in found.items():
        for gpus, messages in by_gpus.items():
            copy_s_per_byte = _copy_s_per_byte(messages, found["captured"].get(gpus)) if regime == "eager" else 0.0
            seconds = messages.seconds - copy_s_per_byte * messages.size_bytes
            impossible = seconds < messages.size_bytes / gpu.link_bytes_per_s
            if np.sum(~impossible) < _LEAST_MESSAGES:
                raise InputError(
                    f"{path}: {np.sum(~impossible)} of {len(seconds)} messages among {gpus} GPUs are slower than "
                    f"{gpu.name}'s link of {gpu.link_bytes_per_s / 1e9:g} GB/s, accepted are {_LEAST_MESSAGES} or more"
                )
            curve, report = fit_all_reduce(
                messages.size_bytes[~impossible], seconds[~impossible], int(np.sum(impossible))
            )
            yield AllReduceTable(gpus, regime, engine, device, True, curve, report.to_json())


def read_messages(path: Path, regime: Regime) -> dict[int, Messages]:
    """The messages of one regime by number of GPUs, as they were timed.

    Raises:
        InputError: as ``read_points``.
    """
    table = read_points(
        path,
        ("num_gpus", "message_size", "latency"),
        only={"kernel_source": _KERNELS[regime]},
        among={"allreduce_dtype": HALVES},
    )
    order = np.argsort(table["message_size"])
    # Read as bytes, 2 GPUs would drop out of vLLM's custom all-reduce (limit 8 MiB) at 4 MiB, and large messages would
    # reach 178 GB/s per GPU on NVLink instead of NCCL's usual 356.
    rows = {int(count): order[table["num_gpus"][order] == count] for count in np.unique(table["num_gpus"])}
    return {
        count: Messages(table["message_size"][own] * BF16_BYTES, table["latency"][own] * 1e-3)
        for count, own in rows.items()
    }


def _copy_s_per_byte(eager: Messages, captured: Messages | None) -> float:
    if captured is None or captured.size_bytes[-1] != eager.size_bytes[-1]:
        return 0.0
    return max(0.0, float((eager.seconds[-1] - captured.seconds[-1]) / eager.size_bytes[-1]))


def _sources(path: Path) -> tuple[str, ...]:
    return distinct(path, "kernel_source")


def _engine(path: Path) -> str:
    """The engine and its version by the table's columns, or else by its name."""
    try:
        return " ".join((*distinct(path, "framework"), *distinct(path, "version")))
    except InputError:
        found = re.search(r"vllm[-_]?(\d+(?:\.\d+)+)", str(path))
        return "vLLM" if found is None else f"vLLM {found[1]}"
