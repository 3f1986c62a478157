"""Fits to batches of any lengths: points made by a known law give the law back."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.calibration.kernels import fit_kernel
from l4sim.calibration.kernels.flashinfer import assumed
from l4sim.calibration.points.batches import BatchPoint, MeasuredBatches
from l4sim.cost.attention import KERNELS, build_attention
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.torch_cpu import TorchCpuAttention, TorchCpuCoefficients
from l4sim.cost.model import AttentionModel
from l4sim.errors import InputError
from l4sim.specs.gpu import GPU

SHAPE = Shape(32, 8, 128, 132)


def batches() -> list[tuple[str, Batch]]:
    made = []
    rng = np.random.default_rng(3)
    for requests in (1, 4, 16, 32, 33, 64, 128, 160, 256):
        for tokens in (32768, 131072, 524288):
            uniform = np.full(requests, tokens // requests, np.int64)
            skewed = rng.permutation(rng.lognormal(0, 1, requests))
            uneven = np.maximum(1, skewed / skewed.sum() * tokens).astype(np.int64)
            made += [("uniform", Batch(uniform, int(uniform.sum()))), ("lognormal", Batch(uneven, int(uneven.sum())))]
    chunks = [(512, 0), (2048, 0), (8192, 0), (512, 8192), (2048, 8192), (128, 65536), (1024, 32768), (256, 1024)]
    return made + [("prompts", Batch(np.empty(0, np.int64), 0, (Prefill(*chunk),))) for chunk in chunks]


def points(kernel: str, model: AttentionModel) -> list[BatchPoint]:
    return [
        BatchPoint(
            "flashinfer-prefill" if batch.prefills and kernel == "flashinfer-tensor" else kernel,
            "graph" if kernel == "flashinfer-tensor" and not batch.prefills else "eager",
            pattern,
            SHAPE,
            batch,
            model.attention_s(batch),
        )
        for pattern, batch in batches()
    ]


def test_the_cpu_law_comes_back_exactly(h200: GPU) -> None:
    law = TorchCpuCoefficients(2e-5, 6e-5, 2e-10, 1e-10, 5e-11)
    coefficients, report = fit_kernel(
        "torch-cpu", MeasuredBatches(points("torch-cpu", TorchCpuAttention(SHAPE, law))), h200
    )
    assert {name: coefficients[name] for name in asdict(law)} == pytest.approx(asdict(law), rel=1e-6)
    assert report.errors["heterogeneous"].worst_pct == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["flashinfer-tensor", "flashinfer-batch"])
def test_a_flashinfer_law_is_found_from_uneven_batches(kernel: str, h200: GPU) -> None:
    law = replace(assumed(h200), launch_s=4e-6, block_bytes_per_s=4.5e10, dram_bytes_per_s=4.1e12, prefill_flops=5.0e14)
    coefficients, report = fit_kernel(kernel, MeasuredBatches(points(kernel, KERNELS[kernel].build(SHAPE, law))), h200)
    assert report.errors["uniform"].mape_pct < 1
    assert report.errors["heterogeneous"].mape_pct < 1
    assert report.errors["prefill"].mape_pct < 1
    assert coefficients["block_bytes_per_s"] == pytest.approx(law.block_bytes_per_s, rel=0.05)
    build_attention(kernel, coefficients, heads=32, kv_heads=8, head_dim=128, sms=132)


def test_a_point_that_beats_the_roofline_is_flagged_and_left_out(h200: GPU) -> None:
    law = TorchCpuCoefficients(2e-5, 6e-5, 2e-10, 1e-10, 5e-11)
    measured = points("torch-cpu", TorchCpuAttention(SHAPE, law))
    # 128 KiB of keys and values per request at 4.8 TB/s take longer.
    measured.append(replace(measured[0], batch=Batch(np.full(64, 1024), 65536), seconds=1e-9))
    coefficients, report = fit_kernel("torch-cpu", MeasuredBatches(measured), h200)
    assert report.errors["uniform"].flagged == 1
    assert coefficients["request_s"] == pytest.approx(6e-5, rel=1e-6)


@pytest.mark.slow
def test_eager_plans_of_captured_kernels_are_left_to_the_reader(h200: GPU) -> None:
    law = replace(assumed(h200), launch_s=4e-6)
    measured = points("flashinfer-tensor", KERNELS["flashinfer-tensor"].build(SHAPE, law))
    eager = [replace(point, planned="eager", seconds=1.0) for point in measured if not point.batch.prefills]
    _, report = fit_kernel("flashinfer-tensor", MeasuredBatches(measured + eager), h200)
    assert report.errors["uniform"].mape_pct < 1


def test_too_few_points_are_refused(h200: GPU) -> None:
    law = TorchCpuCoefficients(2e-5, 6e-5, 2e-10, 1e-10, 5e-11)
    few = points("torch-cpu", TorchCpuAttention(SHAPE, law))[:10]
    with pytest.raises(InputError, match=r"torch-cpu: 8 decode points to fit, accepted are 20 or more"):
        fit_kernel("torch-cpu", MeasuredBatches(few), h200)


def test_kernels_without_such_a_fit_are_refused(h200: GPU) -> None:
    with pytest.raises(InputError, match="no fit of attention kernel 'fa3' to measured batches: accepted are flash"):
        fit_kernel("fa3", MeasuredBatches([]), h200)
