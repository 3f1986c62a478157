"""Seconds of the all-reduces that tensor parallelism needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.aiconfigurator import BF16
from l4sim.cost.curve import Curve, thinned_curve
from l4sim.cost.fitting import Errors, errors
from l4sim.cost.points import read_points
from l4sim.errors import InputError

FloatArray = NDArray[np.float64]

# aiconfigurator counts elements of bf16, not bytes: read as bytes, 2 GPUs would drop out of vLLM's custom all-reduce
# (limit 8 MiB) at 4 MiB, and large messages would reach 178 GB/s per GPU on NVLink instead of NCCL's usual 356.
_ELEMENT_BYTES = 2

_TOLERANCE = 0.03

_LATENCY_S = 12.7e-6
_LINK_FRACTION = 0.56


def fit_all_reduce(path: Path) -> tuple[Mapping[int, Curve], Errors]:
    """Fit one curve over bytes per number of GPUs to an aiconfigurator table (``num_gpus``, ``message_size``, ms).

    Only the rows under CUDA graphs count, as vLLM runs decode. Few knots are kept: those that hold all points within
    3 %; the errors are of the points between them.

    Raises:
        InputError: as ``read_points``.
    """
    table = read_points(
        path, ("num_gpus", "message_size", "latency"), only={"kernel_source": "vLLM_custom_graph"}, among=BF16
    )
    fitted: dict[int, Curve] = {}
    predicted: list[FloatArray] = []
    measured: list[FloatArray] = []
    for gpus in np.unique(table["num_gpus"]):
        rows = np.flatnonzero(table["num_gpus"] == gpus)
        rows = rows[np.argsort(table["message_size"][rows])]
        size, seconds = table["message_size"][rows] * _ELEMENT_BYTES, table["latency"][rows] * 1e-3
        curve = thinned_curve(size, seconds, _TOLERANCE)
        between = ~np.isin(size, curve.sizes)
        predicted.append(curve.at(size[between]))
        measured.append(seconds[between])
        fitted[int(gpus)] = curve
    return fitted, errors(np.concatenate(predicted), np.concatenate(measured), flagged=0)


def roofline_all_reduce(link_bytes_per_s: float, gpus: int) -> Curve:
    """A ring all-reduce among ``gpus``: each sends 2 (gpus - 1) / gpus of the message over its link. Not measured.

    Latency and the reached fraction of the link are those of NCCL between two RTX PRO 6000 on PCIe 5.0
    (casys-kaist/LLMServingSim, hardware.yaml: 12.7 us for 4 KiB, 36 GB/s for 20 MiB).
    """
    size_bytes = float(1 << 30)
    transfer_s = 2 * (gpus - 1) / gpus * size_bytes / (link_bytes_per_s * _LINK_FRACTION)
    return Curve((0.0, size_bytes), (_LATENCY_S, _LATENCY_S + transfer_s))


def all_reduce_of(table: Mapping[int, Curve], gpus: int, profile: str) -> Curve:
    """The all-reduce among ``gpus``.

    Raises:
        InputError: the profile has none for so many GPUs.
    """
    if gpus not in table:
        known = ", ".join(str(count) for count in sorted(table)) or "none"
        raise InputError(
            f"profile {profile}: no all-reduce among {gpus} GPUs, tensor parallel sizes accepted: 1, {known}"
        )
    return table[gpus]
