"""The attention kernels of a ``profile.json`` that were not measured on its GPU: scaled, or assumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from l4sim.cost.attention import FLASHINFER_KERNELS, assumed_attention
from l4sim.cost.profile import load_profile
from l4sim.cost.scaling import scaled_fa2, scaled_fa3
from l4sim.specs.gpu import GPU

# A kernel of vLLM's that was not measured on a GPU (on Hopper not its first choice), and the measured GPU whose figures
# for it are the nearest.
_NEAREST = {
    "h200-sxm": ("fa2", "rtx-pro-6000"),
    "h100-sxm": ("fa2", "rtx-pro-6000"),
    "h20-141gb": ("fa3", "h200-sxm"),
    "h800": ("fa3", "h100-sxm"),
    "a100-80gb-sxm": ("fa2", "rtx-pro-6000"),
    "a800": ("fa2", "rtx-pro-6000"),
    "l40-48gb": ("fa2", "rtx-pro-6000"),
    "rtx-4090": ("fa2", "rtx-pro-6000"),
}
_SCALED = {"fa2": scaled_fa2, "fa3": scaled_fa3}


def kernel_json(coefficients: Mapping[str, Any], errors: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A kernel as ``profile.json`` holds it; empty ``errors`` mean that it was not measured."""
    return {"coefficients": dict(coefficients), "errors": dict(errors), "source": source}


def flashinfer_kernels(gpu: GPU) -> dict[str, Any]:
    """FlashInfer's decode kernels by name, from the datasheet."""
    source = "FlashInfer's splits, datasheet peaks at assumed fractions; not measured"
    return {name: kernel_json(assumed_attention(name, gpu), {}, source) for name in FLASHINFER_KERNELS}


def scaled_kernels(gpu: GPU) -> dict[str, Any]:
    """A kernel of vLLM's by name, scaled from the nearest measured GPU; empty if there is none."""
    if gpu.name not in _NEAREST:
        return {}
    kernel, nearest = _NEAREST[gpu.name]
    measured = load_profile(nearest)
    coefficients = _SCALED[kernel](measured.kernels[kernel].coefficients, measured.gpu, gpu)
    return {kernel: kernel_json(coefficients, {}, f"scaled from {nearest} by SM speed and bandwidth; not measured")}
