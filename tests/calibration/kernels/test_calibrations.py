"""What can be done for a kernel: fits by kind of points, assumed figures, scaled ones."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from l4sim.calibration.kernels import CALIBRATIONS, assumed_kernel, fit_kernel
from l4sim.calibration.points.attention import ProfiledBatches, UniformTables
from l4sim.calibration.points.batches import MeasuredBatches
from l4sim.cost.attention import KERNELS, SKEW_ALPHA
from l4sim.cost.attention.flashinfer import BATCH, CUDA_CORE, TENSOR_CORE
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU, GPUS

ASSUMED = (CUDA_CORE, TENSOR_CORE, BATCH)


def test_calibrations_go_by_the_names_of_kernels() -> None:
    assert set(CALIBRATIONS) <= set(KERNELS)


def test_a_kernel_is_fitted_to_the_kinds_of_points_that_it_has_a_fit_for(h200: GPU) -> None:
    points: Any = None
    with pytest.raises(InputError, match="no fit of attention kernel 'fa2' to uniform points: accepted are fa3"):
        fit_kernel("fa2", UniformTables(points, points), h200)
    with pytest.raises(InputError, match="no fit of attention kernel 'fa3' to mixed points: accepted are fa2"):
        fit_kernel("fa3", ProfiledBatches(points, points, 32, 8, 128), h200)
    with pytest.raises(InputError, match=r"'fa3' to measured batches: accepted are flashinfer-cuda, .*, torch-cpu"):
        fit_kernel("fa3", MeasuredBatches([]), h200)


@pytest.mark.parametrize("kernel", ASSUMED)
def test_assumed_figures_scale_with_the_datasheet(kernel: str, h200: GPU) -> None:
    assert assumed_kernel(kernel, h200)["dram_bytes_per_s"] == pytest.approx(0.92 * 4.8e12)


def test_nothing_is_assumed_of_a_kernel_that_was_measured_on_its_gpus(h200: GPU) -> None:
    with pytest.raises(InputError, match=r"'fa3': accepted are flashinfer-cuda"):
        assumed_kernel("fa3", h200)


@pytest.mark.parametrize("kernel", [name for name, known in CALIBRATIONS.items() if known.scale is not None])
def test_scaling_keeps_the_coefficients_by_name(kernel: str, coefficients: Any) -> None:
    scale = CALIBRATIONS[kernel].scale
    assert scale is not None
    scaled = scale(coefficients(kernel), GPUS["h200-sxm"], GPUS["h20-141gb"])
    assert set(scaled) == {field.name for field in fields(KERNELS[kernel].coefficients)} | {SKEW_ALPHA}
