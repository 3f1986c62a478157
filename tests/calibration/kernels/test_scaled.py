"""Kernels on GPUs where they were not measured: as fast as memory or the SM's arithmetic allows."""

from collections.abc import Callable

import pytest

from l4sim.batch import Batch
from l4sim.calibration.kernels.fa2 import scaled_fa2
from l4sim.calibration.kernels.fa3 import scaled_fa3
from l4sim.cost.build import build_cost
from l4sim.cost.profile import load_profile
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


def test_fa2_on_the_same_gpu_keeps_its_coefficients() -> None:
    bundled = load_profile("rtx-pro-6000")
    fa2 = bundled.kernels["fa2"].coefficients
    scaled = scaled_fa2(fa2, bundled.gpu, bundled.gpu)
    # What was left over is one GPU's own, and no coefficient to scale.
    assert scaled.pop("decode_correction") is None
    assert scaled == pytest.approx({name: value for name, value in fa2.items() if name != "decode_correction"})


def test_fa2_computes_a_tile_slower_on_an_l40_and_keeps_less_in_its_cache() -> None:
    # One SM of an RTX PRO 6000 computes 2.68 TFLOP/s, one of an L40 1.27; L2 of 128 and 96 MiB.
    bundled, l40 = load_profile("rtx-pro-6000"), GPUS["l40-48gb"]
    fa2 = bundled.kernels["fa2"].coefficients
    scaled = scaled_fa2(fa2, bundled.gpu, l40)
    assert scaled["tile_kv_block_s"] / fa2["tile_kv_block_s"] == pytest.approx(2.102, abs=0.001)
    assert scaled["drift_bytes"] / fa2["drift_bytes"] == pytest.approx(0.75)
    assert scaled["dram_bytes_per_s"] < l40.memory_bytes_per_s
