"""Tables of all-reduces that ai-dynamo's collector timed in an engine: ``custom_allreduce_perf``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from l4sim.calibration.fits.all_reduce import fit_all_reduce
from l4sim.calibration.fits.errors import Errors, FloatArray
from l4sim.calibration.points.tables import HALVES, distinct, read_points
from l4sim.cost.communication import REGIMES, AllReduceTable, Regime
from l4sim.cost.curve import OverBytes
from l4sim.errors import InputError
from l4sim.specs.dtypes import BF16_BYTES
from l4sim.specs.gpu import GPU

_KERNELS: dict[str, dict[Regime, str]] = {
    "vLLM": {"captured": "vLLM_custom_graph", "eager": "vLLM_custom_eager"},
    "SGLang": {"captured": "SGLang_CustomAllReduce_graph", "eager": "SGLang_CustomAllReduce_eager"},
}
_LEAST_MESSAGES = 3


class Messages(NamedTuple):
    """Messages of one number of GPUs in one regime, sizes ascending; each of shape ``[messages]``."""

    size_bytes: FloatArray
    seconds: FloatArray


def read_all_reduces(path: Path, gpu: GPU, backend: str = "vLLM") -> list[AllReduceTable]:
    """Curves of every number of GPUs and regime in a table of ``kernel_source, num_gpus, message_size, latency`` (ms).

    ``message_size`` counts elements of bf16. Rows that beat one crossing of the GPU's link are left out. Eager ones are
    the GPU's part of what was timed (`_eager_s`).

    Source: ai-dynamo/aiconfigurator, collector/network/collect_all_reduce.py, `benchmark_vllm_allreduce`.

    Raises:
        InputError: as ``read_points``; too few messages.
    """
    engine, device, sources = _engine(path), " ".join(distinct(path, "device")), distinct(path, "kernel_source")
    kernels = _KERNELS[backend]
    found = {regime: read_messages(path, regime, backend) for regime in REGIMES if kernels[regime] in sources}
    if not found:
        raise InputError(f"{path}: no rows with kernel_source {' or '.join(kernels.values())}")
    tables = []
    for regime, by_gpus in found.items():
        for gpus, messages in by_gpus.items():
            captured = found.get("captured", {}).get(gpus)
            seconds = messages.seconds if regime == "captured" else _eager_s(messages, captured)
            curve, errors = _fit(messages.size_bytes, seconds, gpu, f"{path}: messages among {gpus} GPUs")
            tables.append(AllReduceTable(gpus, regime, engine, device, True, curve, errors.to_json()))
    return tables


def _fit(size_bytes: FloatArray, seconds: FloatArray, gpu: GPU, where: str) -> tuple[OverBytes, Errors]:
    possible = seconds >= size_bytes / gpu.link_bytes_per_s
    if np.sum(possible) < _LEAST_MESSAGES:
        raise InputError(
            f"{where}: {np.sum(possible)} of {len(seconds)} are slower than {gpu.name}'s link of "
            f"{gpu.link_bytes_per_s / 1e9:g} GB/s, accepted are {_LEAST_MESSAGES} or more"
        )
    return fit_all_reduce(size_bytes[possible], seconds[possible], flagged=int(np.sum(~possible)))


def _eager_s(eager: Messages, captured: Messages | None) -> FloatArray:
    """Seconds of the GPU for eager messages, of shape ``[messages]``, of what the collector timed of GPU and host.

    It copies the message before each call, which an engine does not: at the largest message, where both regimes run the
    same NCCL kernel, they differ by that copy, and it is taken off in proportion to the bytes. Small messages take as
    long as the host needs to launch them; an engine's host runs ahead in steps as long as eager ones, so that they take
    no more than captured ones and the copy to a registered buffer.
    """
    if captured is None or not np.array_equal(captured.size_bytes, eager.size_bytes):
        return eager.seconds
    copy_s_per_byte = max(0.0, float((eager.seconds[-1] - captured.seconds[-1]) / eager.size_bytes[-1]))
    copy_s = copy_s_per_byte * eager.size_bytes
    return np.minimum(eager.seconds - copy_s, captured.seconds + copy_s)


def read_messages(path: Path, regime: Regime, backend: str = "vLLM") -> dict[int, Messages]:
    """The messages of one regime by number of GPUs, as they were timed.

    Raises:
        InputError: as ``read_points``.
    """
    table = read_points(
        path,
        ("num_gpus", "message_size", "latency"),
        only={"kernel_source": _KERNELS[backend][regime]},
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


def _engine(path: Path) -> str:
    """The engine and its version by the table's columns, or else by its name."""
    try:
        return " ".join((*distinct(path, "framework"), *distinct(path, "version")))
    except InputError:
        found = re.search(r"vllm[-_]?(\d+(?:\.\d+)+)", str(path))
        return "vLLM" if found is None else f"vLLM {found[1]}"
