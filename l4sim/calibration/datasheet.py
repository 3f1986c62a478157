"""What a GPU's datasheet tells where nothing was measured: whole profiles, and the missing parts of others."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from l4sim.calibration.all_reduces import all_reduces_of
from l4sim.calibration.kernels import CALIBRATIONS, assumed_kernel
from l4sim.calibration.profile_json import kernel_json, provenance_json
from l4sim.cost.elementwise import ElementwiseCoefficients
from l4sim.cost.gemm import GemmCoefficients
from l4sim.cost.profile import load_profile
from l4sim.specs.fitted import GRAPH_TIMED, load_fitted
from l4sim.specs.gpu import GPU

_ASSUMED = "datasheet peaks at fractions that fits of H200 and H100 reach; not measured"

ROOFLINE_GEMM = GemmCoefficients(
    launch_s=2.5e-6,
    bandwidth_fraction=0.83,
    tensor_core_fraction=0.85,
    wave_s=0.2e-6,
    sm_stream_bytes_per_s=500e9,
    split_k_s=2.6e-6,
    overlap_exponent=2.8,
)
# The smallest measured GEMM takes as long, and so do the smallest norms and activations on an RTX PRO 6000.
ELEMENTWISE = ElementwiseCoefficients(kernel_s=2.5e-6, bandwidth_fraction=0.8)
ELEMENTWISE_SOURCE = (
    "ours: five kernels per layer at the time of the smallest measured GEMM, and their bytes; not measured"
)


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
    "l40s": ("fa2", "rtx-pro-6000"),
    "rtx-4090": ("fa2", "rtx-pro-6000"),
}


def roofline_profile(gpu: GPU) -> dict[str, Any]:
    """What ``profile.json`` holds for a GPU of which only the datasheet is known."""
    kernels = {**scaled_kernels(gpu), **assumed_kernels(gpu)}
    return {
        "name": gpu.name,
        "measured": False,
        "gpu": asdict(gpu),
        "provenance": provenance_json("ours, from the datasheet", "Apache-2.0", kernels=None),
        "default_kernel": next(iter(kernels)),
        "kernels": kernels,
        "linear": {"coefficients": asdict(ROOFLINE_GEMM), "errors": {}, "source": _ASSUMED},
        "elementwise": {"coefficients": asdict(ELEMENTWISE), "source": ELEMENTWISE_SOURCE},
        "operators": {"models": [], "source": "none"},
        "all_reduce": all_reduces_of(gpu),
        "host_overhead": host_json(GRAPH_TIMED),
    }


def host_json(kind: str) -> dict[str, Any]:
    """``host_overhead`` of a profile whose kernels were timed in one of the ways of `l4sim.specs.fitted`."""
    fitted = load_fitted().host(kind)
    return {"seconds": fitted.iteration_s, "kind": kind, "source": fitted.source}


def hopper_elementwise() -> tuple[ElementwiseCoefficients, str]:
    """Element-wise kernels as they were measured on an H200, and their source."""
    return load_profile("h200-flashinfer").elementwise, "ours: measured on an H200 (profiles/h200-flashinfer)"


def assumed_kernels(gpu: GPU) -> dict[str, Any]:
    """The attention kernels that something is assumed of on any GPU, by name."""
    source = "FlashInfer's splits, datasheet peaks at assumed fractions; not measured"
    return {
        name: kernel_json(assumed_kernel(name, gpu), {}, source)
        for name, known in CALIBRATIONS.items()
        if known.assume is not None
    }


def scaled_kernels(gpu: GPU) -> dict[str, Any]:
    """A kernel of vLLM's by name, scaled from the nearest measured GPU; empty if there is none."""
    if gpu.name not in _NEAREST:
        return {}
    kernel, nearest = _NEAREST[gpu.name]
    scale = CALIBRATIONS[kernel].scale
    if scale is None:
        return {}
    measured = load_profile(nearest)
    coefficients = scale(measured.kernels[kernel].coefficients, measured.gpu, gpu)
    return {kernel: kernel_json(coefficients, {}, f"scaled from {nearest} by SM speed and bandwidth; not measured")}
