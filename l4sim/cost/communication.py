"""Seconds of the all-reduces that tensor parallelism needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from l4sim.cost.fitting import Errors, errors, thin
from l4sim.cost.points import read_points
from l4sim.errors import InputError

FloatArray = NDArray[np.float64]

# aiconfigurator counts elements of bf16, not bytes: read as bytes, 2 GPUs would drop out of vLLM's custom all-reduce
# (limit 8 MiB) at 4 MiB, and large messages would reach 178 GB/s per GPU on NVLink instead of NCCL's usual 356.
_ELEMENT_BYTES = 2

_TOLERANCE = 0.03


@dataclass(frozen=True, slots=True)
class AllReduce:
    """One all-reduce among a fixed number of GPUs, linear in size between knots."""

    size_bytes: tuple[float, ...]
    """Ascending."""
    seconds: tuple[float, ...]

    def all_reduce_s(self, size_bytes: ArrayLike) -> FloatArray:
        """Seconds for messages of so many bytes, shape ``[points]``.

        Below the first knot its time holds (latency), beyond the last one its rate.
        """
        size = np.asarray(size_bytes, dtype=np.float64)
        within = np.interp(size, self.size_bytes, self.seconds)
        return np.asarray(np.where(size > self.size_bytes[-1], within * size / self.size_bytes[-1], within))


def fit_all_reduce(path: Path) -> tuple[Mapping[int, AllReduce], Errors]:
    """Fit one ``AllReduce`` per number of GPUs to an aiconfigurator table (``num_gpus``, ``message_size``, ms).

    Only the rows under CUDA graphs count, as vLLM runs decode. Few knots are kept: those that hold all points within
    3 %; the errors are of the points between them.

    Raises:
        InputError: as ``read_points``.
    """
    table = read_points(path, ("num_gpus", "message_size", "latency"), only={"kernel_source": "vLLM_custom_graph"})
    fitted: dict[int, AllReduce] = {}
    predicted: list[FloatArray] = []
    measured: list[FloatArray] = []
    for gpus in np.unique(table["num_gpus"]):
        rows = np.flatnonzero(table["num_gpus"] == gpus)
        rows = rows[np.argsort(table["message_size"][rows])]
        size, seconds = table["message_size"][rows] * _ELEMENT_BYTES, table["latency"][rows] * 1e-3
        knots = thin(size, seconds, _TOLERANCE)
        model = AllReduce(tuple(size[knots].tolist()), tuple(seconds[knots].tolist()))
        between = np.setdiff1d(np.arange(len(size)), knots)
        predicted.append(model.all_reduce_s(size[between]))
        measured.append(seconds[between])
        fitted[int(gpus)] = model
    return fitted, errors(np.concatenate(predicted), np.concatenate(measured), flagged=0)


def roofline_all_reduce(link_bytes_per_s: float, latency_s: float, gpus: int) -> AllReduce:
    """A ring all-reduce among ``gpus``: each sends 2 (gpus - 1) / gpus of the message over its link. Not measured."""
    size_bytes = float(1 << 30)
    return AllReduce((0.0, size_bytes), (latency_s, latency_s + 2 * (gpus - 1) / gpus * size_bytes / link_bytes_per_s))


def all_reduce_of(table: Mapping[int, AllReduce], gpus: int, profile: str) -> AllReduce:
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
