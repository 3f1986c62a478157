"""Speed of attention models: a batch never seen before, as the simulator asks twice per segment."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from l4sim.batch import Batch, Prefill
from l4sim.calibration.kernels import assumed_kernel
from l4sim.cost.attention import build_attention
from l4sim.cost.attention.flashinfer import KERNELS
from l4sim.cost.model import AttentionModel
from l4sim.cost.profile import load_profile
from l4sim.specs.gpu import load_gpu

LLAMA_8B = {"heads": 32, "kv_heads": 8, "head_dim": 128}
H200 = "h200-sxm"


def batch(requests: int, prefills: tuple[Prefill, ...] = ()) -> Batch:
    contexts = np.random.default_rng(requests).lognormal(7.5, 1.2, requests).astype(np.int64) + 1
    return Batch(contexts, int(contexts.sum()), prefills)


def fa3(model: str = "tile") -> AttentionModel:
    coefficients = load_profile(H200).kernels["fa3"].coefficients
    return build_attention("fa3", coefficients, **LLAMA_8B, sms=132, model=model)


@pytest.mark.parametrize("requests", [1, 16, 64, 256])
def test_fa3_decode(benchmark: BenchmarkFixture, requests: int) -> None:
    benchmark(fa3().attention_s, batch(requests))


@pytest.mark.parametrize("model", ["mean", "sum", "skew"])
def test_fa3_coarse_models(benchmark: BenchmarkFixture, model: str) -> None:
    benchmark(fa3(model).attention_s, batch(64))


def test_fa3_mixed_batch(benchmark: BenchmarkFixture) -> None:
    benchmark(fa3().attention_s, batch(64, (Prefill(2048, 4096),)))


@pytest.mark.parametrize("kernel", [kernel.name for kernel in KERNELS])
def test_flashinfer_decode(benchmark: BenchmarkFixture, kernel: str) -> None:
    gpu = load_gpu(H200)
    model = build_attention(kernel, assumed_kernel(kernel, gpu), **LLAMA_8B, sms=gpu.sms)
    benchmark(model.attention_s, batch(64))
