"""A GPU's chain on a law: what a few minutes of FlashInfer points on an H200 would be fitted to."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from l4sim.calibration.kernels.flashinfer import assumed
from l4sim.calibration.measured.fit import fit_measured
from l4sim.calibration.measured.folder import Measured
from l4sim.calibration.profile_json import write_profile
from l4sim.cost.attention import KERNELS
from l4sim.cost.attention.shape import Shape
from l4sim.cost.basis import basis_of
from l4sim.cost.model import AttentionModel
from l4sim.cost.profile import Provenance, load_profile
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model
from tests.validate_gpu.measure.known_law import batch_of, law_s
from validate_gpu.measure.campaign import measure_points
from validate_gpu.measure.estimate import GPU_SPEED, measure_s
from validate_gpu.measure.grids import GPU_GRID
from validate_gpu.measure.plan import Target, plan
from validate_gpu.measure.points import AttentionPoint, IterationPoint, LayersPoint, Point, Sample
from validate_gpu.measure.store import Store

GPU = GPUS["h200-sxm"]
LLAMA = load_model("llama-3.1-8b")
LAW = replace(assumed(GPU), launch_s=4e-6, block_bytes_per_s=4.5e10, dram_bytes_per_s=4.1e12, prefill_flops=5e14)
HOST_S = 6e-4
TARGET = Target(
    LLAMA,
    (("flashinfer-tensor", "graph"), ("flashinfer-cuda", "graph"), ("flashinfer-tensor", "eager")),
    ("flashinfer-prefill",),
    "flashinfer-tensor",
    kv_tokens=1 << 20,
    item_bytes=2,
    gpus=1,
)
NOISE = 0.01


@cache
def model(kernel: str) -> AttentionModel:
    return KERNELS[kernel].build(Shape(32, 8, 128, 132), LAW)


class Bench:
    """An H200 by the law, with noise, on a clock of its own."""

    def __init__(self) -> None:
        self.clock_s = 0.0
        self._rng = np.random.default_rng(0)

    def measure(self, point: Point) -> Sample:
        self.clock_s += measure_s(point, GPU_SPEED, item_bytes=2)
        return Sample(self._seconds(point) * float(np.exp(self._rng.normal(0, NOISE))), 1e-7, 20, "graph", 0.004)

    def _seconds(self, point: Point) -> float:
        match point:
            case AttentionPoint():
                kernel = "flashinfer-tensor" if point.chunks else point.kernel
                return model(kernel).attention_s(batch_of(point.contexts, point.chunks))
            case IterationPoint():
                batch = batch_of(point.contexts, point.chunks)
                layers = law_s(LayersPoint(LLAMA, batch.tokens, 32)) - law_s(LayersPoint(LLAMA, batch.tokens, 0))
                rest = law_s(LayersPoint(LLAMA, batch.tokens, 0)) + 1e-6 * (batch.sampled - 1)
                return HOST_S + layers + rest + 32 * model("flashinfer-tensor").attention_s(batch)
        return law_s(point)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What 100 seconds leave, with most of the CUDA-core points lost."""
    folder = tmp_path_factory.mktemp("law")
    provenance = Provenance(None, "a law", "Apache-2.0", None, None, None, None, None)
    bench, store = Bench(), Store(folder, Measured("law", GPU, provenance, "flashinfer-tensor"))

    def cost_s(point: Point) -> float:
        return measure_s(point, GPU_SPEED, item_bytes=2)

    measure_points(
        plan(TARGET, GPU_GRID, cost_s),
        bench,
        store,
        estimate_s=cost_s,
        budget_s=100,
        now=lambda: bench.clock_s,
        clock_mhz=lambda: 1980,
        progress=lambda point, measured, left_s: None,
    )
    path = folder / "attention.csv"
    lines = path.read_text().splitlines(keepends=True)
    cuda = [line for line in lines if line.startswith("flashinfer-cuda")]
    path.write_text("".join(line for line in lines if line not in cuda[10:]))
    return folder


@pytest.mark.slow
def test_the_law_comes_back_to_within_the_noise(folder: Path) -> None:
    profile = load_profile(str(write_profile(fit_measured(folder), folder).parent))
    served = profile.kernels["flashinfer-tensor"]
    for kind in ("uniform", "heterogeneous", "prefill"):
        assert served.errors[kind]["mape_pct"] < 3
    assert served.coefficients["block_bytes_per_s"] == pytest.approx(LAW.block_bytes_per_s, rel=0.1)
    assert served.coefficients["dram_bytes_per_s"] == pytest.approx(LAW.dram_bytes_per_s, rel=0.05)
    assert served.coefficients["prefill_flops"] == pytest.approx(LAW.prefill_flops, rel=0.05)
    assert profile.errors["operators"]["mape_pct"] < 3
    assert profile.errors["iteration"]["mape_pct"] < 3
    assert profile.host.decode_s == pytest.approx(HOST_S, rel=0.5)

    # A kernel with too few points is kept by assumption, and says so.
    lost = profile.kernels["flashinfer-cuda"]
    assert not lost.errors
    assert "not measured (flashinfer-cuda: 9 decode points to fit, accepted are 20 or more" in lost.source
    assert basis_of(profile, LLAMA, "flashinfer-cuda") == "measured, but for flashinfer-cuda: estimated"
