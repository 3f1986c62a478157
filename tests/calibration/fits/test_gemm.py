"""Fitting products: known coefficients come back, impossible rows are left out, real tables reach the target."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from l4sim.calibration.fits.gemm import GemmPoints, fit_few_gemm, fit_gemm
from l4sim.calibration.importers.aiconfigurator import read_gemm_points
from l4sim.cost.gemm import GemmCoefficients, gemm_s
from l4sim.cost.profile import load_profile
from l4sim.specs.gpu import GPUS

H200 = GPUS["h200-sxm"]
TRUE = GemmCoefficients(
    launch_s=3e-6,
    bandwidth_fraction=0.8,
    tensor_core_fraction=0.7,
    wave_s=0.4e-6,
    sm_stream_bytes_per_s=150e9,
    split_k_s=3e-6,
    overlap_exponent=3.0,
)


def points_of(coefficients: GemmCoefficients) -> GemmPoints:
    m, n, k = (
        np.array(column)
        for column in zip(
            *product((1, 16, 64, 256, 1024, 4096), (256, 1024, 4096, 16384), (256, 1024, 4096, 16384)), strict=True
        )
    )
    return GemmPoints(m, n, k, gemm_s(m, n, k, H200, coefficients))


def test_points_of_the_model_itself_are_fitted_to_a_percent() -> None:
    fitted, errors = fit_gemm(points_of(TRUE), H200)
    assert errors.mape_pct < 1
    assert fitted.bandwidth_fraction == pytest.approx(0.8, rel=0.05)
    assert fitted.launch_s == pytest.approx(3e-6, rel=0.1)


def test_few_points_hold_out_points_and_learn_what_their_shapes_have_in_common() -> None:
    # One shape of a model takes 1.2 times as long as the law says, at all m.
    points = points_of(replace(TRUE, wide_tiles=True))
    odd = (points.n == 4096) & (points.k == 16384)
    fitted, errors = fit_few_gemm(replace(points, seconds=np.where(odd, 1.2, 1.0) * points.seconds), H200)
    assert errors.points == 19  # 96 points; the last, lone neighbour is not drawn.
    assert errors.mape_pct < 2.5
    law, own = (gemm_s([100, 700], 4096, 16384, H200, c) for c in (replace(TRUE, wide_tiles=True), fitted))
    assert own / law == pytest.approx([1.2, 1.2], rel=0.08)


def test_a_row_that_beats_the_roofline_is_flagged_and_left_out() -> None:
    points = points_of(TRUE)
    seconds = points.seconds.copy()
    # 16384 x 16384 bf16 weights need at least 112 us.
    seconds[-1] = 1e-6
    _, errors = fit_gemm(replace(points, seconds=seconds), H200)
    assert errors.flagged == 1
    assert errors.mape_pct < 1


@pytest.mark.slow
def test_the_bundled_profile_predicts_decode_sized_products_of_model_width(measurements: Path) -> None:
    points = read_gemm_points(measurements / "aic_h200_sxm_vllm0.24_gemm_bf16.csv.gz")
    decode = (points.m <= 512) & (points.n >= 1024) & (points.k >= 1024)
    bundled = load_profile("h200-sxm")
    predicted_s = gemm_s(points.m[decode], points.n[decode], points.k[decode], bundled.gpu, bundled.linear)
    assert np.abs(predicted_s / points.seconds[decode] - 1).mean() <= 0.06
