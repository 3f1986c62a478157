"""How the attention kernels' coefficients come about: fitted to points, assumed from a datasheet, or scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l4sim.calibration.fits.errors import FitReport
from l4sim.calibration.kernels import fa2, fa3, flashinfer, torch_cpu
from l4sim.calibration.kernels.calibration import Calibration, Points
from l4sim.cost.attention.torch_cpu import TORCH_CPU
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

CALIBRATIONS: Mapping[str, Calibration] = {
    "fa3": fa3.CALIBRATION,
    "fa2": fa2.CALIBRATION,
    "trtllm-gen": Calibration(fits=fa3.CALIBRATION.fits),
    **flashinfer.CALIBRATIONS,
    TORCH_CPU: torch_cpu.CALIBRATION,
}
"""By the names of `l4sim.cost.attention.KERNELS`; one without an entry is used with coefficients found elsewhere."""


def fit_kernel(kernel: str, points: Points, gpu: GPU) -> tuple[dict[str, Any], FitReport]:
    """Fit a kernel to points of any kind that it has a fit for; a fifth of them is held out for the report.

    Returns the kernel's coefficients as ``profile.json`` has them, ``skew_alpha`` included.

    Raises:
        InputError: no fit of the kernel to such points, or too few of them.
    """
    kind = type(points)
    fits = {name: known.fits[kind] for name, known in CALIBRATIONS.items() if kind in known.fits}
    if kernel not in fits:
        raise InputError(f"no fit of attention kernel '{kernel}' to {points.kind}: accepted are {', '.join(fits)}")
    coefficients, report = fits[kernel](points, gpu)
    return dict(coefficients), report


def assumed_kernel(kernel: str, gpu: GPU) -> dict[str, Any]:
    """Coefficients of a kernel on a GPU where nothing was measured: fractions of the datasheet's peaks.

    Raises:
        InputError: a kernel of which nothing is assumed.
    """
    assume = {name: known.assume for name, known in CALIBRATIONS.items() if known.assume is not None}
    if kernel not in assume:
        raise InputError(f"no assumed figures for kernel '{kernel}': accepted are {', '.join(assume)}")
    return dict(assume[kernel](gpu))
