"""All-reduces as curves over bytes, fitted to measured points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from l4sim.calibration.fits.curves import thinned_curve
from l4sim.calibration.fits.errors import Errors, FloatArray, errors
from l4sim.cost.curve import OverBytes

_TOLERANCE = 0.03

Messages = Mapping[int, tuple[FloatArray, FloatArray]]
"""Bytes, ascending, and seconds of messages, each of shape ``[points]``, by number of GPUs."""


def thinned_all_reduce(measured: Messages) -> Mapping[int, OverBytes]:
    """Curves through few of the points, within 3 % of all."""
    return {gpus: thinned_curve(OverBytes, *points, _TOLERANCE) for gpus, points in measured.items()}


def fit_all_reduce(measured: Messages) -> tuple[Mapping[int, OverBytes], Errors]:
    """The same, with errors at the points that the curves leave out."""
    fitted = thinned_all_reduce(measured)
    predicted: list[FloatArray] = []
    seconds: list[FloatArray] = []
    for gpus, (size_bytes, taken_s) in measured.items():
        between = ~np.isin(size_bytes, fitted[gpus].sizes)
        predicted.append(fitted[gpus].at(size_bytes[between]))
        seconds.append(taken_s[between])
    return fitted, errors(np.concatenate(predicted), np.concatenate(seconds), flagged=0)
