"""The coefficients of PyTorch's attention on a CPU, fitted to measured batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from l4sim.calibration.kernels.batches import BatchFit, seconds_of
from l4sim.calibration.kernels.calibration import Calibration
from l4sim.calibration.measured.cpu import fit_cpu_iterations
from l4sim.calibration.points.batches import BatchPoint, MeasuredBatches
from l4sim.cost.attention.torch_cpu import KERNEL, TORCH_CPU, TorchCpuCoefficients, work
from l4sim.specs.gpu import GPU


def _solve(points: Sequence[BatchPoint], _gpu: GPU) -> TorchCpuCoefficients:
    """Non-negative least squares of relative errors."""
    from scipy.optimize import nnls

    terms = np.array([(1.0, *work(point.batch, point.shape)) for point in points])
    # Columns differ by many orders of magnitude: scaled to one, lest the solver's tolerance drop the small ones.
    scale = np.maximum(terms.max(axis=0), 1.0)
    coefficients, _ = nnls(terms / scale / seconds_of(points)[:, None], np.ones(len(points)))
    return TorchCpuCoefficients(*(coefficients / scale).tolist())


_FIT = BatchFit(KERNEL, _solve, prefill_kernel=TORCH_CPU, captured=False)

CALIBRATION = Calibration(fits={MeasuredBatches: _FIT}, correct=fit_cpu_iterations)
