"""Kernels on GPUs where they were not measured: as fast as memory or the SM's arithmetic allows."""

from collections.abc import Callable

import pytest

from l4sim.cost.batch import Batch
from l4sim.cost.build import build_cost
from l4sim.cost.profile import load_profile
from l4sim.cost.scaling import scaled_fa3
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import load_model

H200, H20 = GPUS["h200-sxm"], GPUS["h20-141gb"]
FA3 = load_profile("h200-sxm").kernels["fa3"].coefficients


def test_the_same_gpu_keeps_its_coefficients() -> None:
    assert scaled_fa3(FA3, H200, H200) == pytest.approx(FA3)


def test_half_the_bandwidth_halves_every_rate_of_memory() -> None:
    h100 = scaled_fa3(FA3, H200, GPUS["h100-sxm"])
    assert h100["dram_bytes_per_s"] == pytest.approx(FA3["dram_bytes_per_s"] * 3.35 / 4.8)
    assert h100["kv_block_s"] == FA3["kv_block_s"]
    assert h100["max_splits"] == FA3["max_splits"]


def test_h20_computes_a_decode_tile_of_64_rows_slower_than_it_loads_it() -> None:
    # 64 x 128 x 128 x 4 operations on one of 78 SMs that share 148 TFLOP/s, at 83 %.
    assert scaled_fa3(FA3, H200, H20)["kv_block_s"] == pytest.approx(4.194e6 / (148e12 / 78 * 0.83), rel=1e-3)


def test_decode_on_h20_is_bound_by_its_few_sms_not_by_its_memory(batch: Callable[..., Batch]) -> None:
    """Both GPUs have 4.8 TB/s; vLLM's FA3 reaches less than half of it on H20."""
    model, decode = load_model("llama-3.1-8b"), batch([16_384] * 64)
    kv_bytes = 64 * 16_384 * model.kv_bytes_per_token / model.layers
    rates = {}
    for name in ("h200-sxm", "h20-141gb"):
        cost = build_cost(load_profile(name), model)
        rates[name] = kv_bytes / cost.attention.attention_s(decode)  # type: ignore[attr-defined]
    assert rates["h200-sxm"] > 4e12
    assert 1.2e12 < rates["h20-141gb"] < 2.4e12
