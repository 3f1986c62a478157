"""Making a ``profile.json``: fitted to measured points, or assumed from a datasheet."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from l4sim.cost.aiconfigurator import find_table
from l4sim.cost.attention import fit_attention
from l4sim.cost.attention.points import read_decode_points, read_prefill_points
from l4sim.cost.communication import fit_all_reduce, roofline_all_reduce
from l4sim.cost.curve import Curve
from l4sim.cost.elementwise import ElementwiseCoefficients
from l4sim.cost.gemm import GemmCoefficients
from l4sim.cost.gemm_fit import fit_gemm, read_gemm_points
from l4sim.cost.operators import MeasuredOperators
from l4sim.cost.profile_kernels import flashinfer_kernels, kernel_json, scaled_kernels
from l4sim.specs.gpu import GPU

_AICONFIGURATOR = "ai-dynamo/aiconfigurator @ 095f58a5, vLLM 0.24"
_ASSUMED = "datasheet peaks at fractions that fits of H200 and H100 reach; not measured"

_ROOFLINE_GEMM = GemmCoefficients(
    launch_s=2.5e-6,
    bandwidth_fraction=0.83,
    tensor_core_fraction=0.85,
    wave_s=0.2e-6,
    sm_stream_bytes_per_s=500e9,
    split_k_s=2.6e-6,
    overlap_exponent=2.8,
)
# The smallest measured GEMM takes as long, and so do the smallest norms and activations on an RTX PRO 6000.
_ELEMENTWISE = ElementwiseCoefficients(kernel_s=2.5e-6, bandwidth_fraction=0.8)
_ELEMENTWISE_SOURCE = (
    "ours: five kernels per layer at the time of the smallest measured GEMM, and their bytes; not measured"
)

_HOST_OVERHEAD_S = 0.3e-3
_HOST_OVERHEAD_SOURCE = "ours: sampling and launches that vLLM's asynchronous scheduling does not hide; not measured"


def fit_profile(gpu: GPU, points: Path, source: str = _AICONFIGURATOR) -> dict[str, Any]:
    """Fit a GPU's profile to a folder of aiconfigurator tables (see ``aiconfigurator.find_table``); FA3 on Hopper.

    ``source`` says where they come from. Returns what ``profile.json`` holds, held-out errors included.

    Raises:
        InputError: a table that is missing or cannot be read.
    """
    gemm, gemm_errors = fit_gemm(read_gemm_points(find_table(gpu, points, "gemm_bf16")), gpu)
    all_reduce, all_reduce_errors = fit_all_reduce(find_table(gpu, points, "allreduce"))
    attention, attention_report = fit_attention(
        "fa3",
        read_decode_points(find_table(gpu, points, "decode_attention")),
        read_prefill_points(find_table(gpu, points, "prefill_attention")),
        gpu,
    )
    return {
        "name": gpu.name,
        "measured": True,
        "gpu": asdict(gpu),
        "provenance": _provenance(source, "Apache-2.0 (measurements)", kernels=source.rpartition(", ")[2]),
        "default_kernel": "fa3",
        "kernels": {
            "fa3": kernel_json(
                attention,
                attention_report.to_json(),
                f"{source}: FlashAttention-3, uniform batches, head_dim 128",
            ),
            **scaled_kernels(gpu),
            **flashinfer_kernels(gpu),
        },
        "linear": {
            "coefficients": asdict(gemm),
            "errors": gemm_errors.to_json(),
            "source": f"{source}: torch.nn.functional.linear, bf16",
        },
        "elementwise": {"coefficients": asdict(_ELEMENTWISE), "source": _ELEMENTWISE_SOURCE},
        "operators": {"models": [], "source": "none"},
        "all_reduce": {
            "gpus": {str(gpus): curve_json(curve, "size_bytes") for gpus, curve in all_reduce.items()},
            "errors": all_reduce_errors.to_json(),
            "source": f"{source}: custom all-reduce under CUDA graphs, NCCL above its limit",
        },
        "host_overhead": {"seconds": _HOST_OVERHEAD_S, "source": _HOST_OVERHEAD_SOURCE},
    }


def roofline_profile(gpu: GPU) -> dict[str, Any]:
    """What ``profile.json`` holds for a GPU of which only the datasheet is known."""
    kernels = {**scaled_kernels(gpu), **flashinfer_kernels(gpu)}
    all_reduce = {
        str(gpus): curve_json(roofline_all_reduce(gpu.link_bytes_per_s, gpus), "size_bytes") for gpus in (2, 4, 8)
    }
    return {
        "name": gpu.name,
        "measured": False,
        "gpu": asdict(gpu),
        "provenance": _provenance("ours, from the datasheet", "Apache-2.0", kernels=None),
        "default_kernel": next(iter(kernels)),
        "kernels": kernels,
        "linear": {"coefficients": asdict(_ROOFLINE_GEMM), "errors": {}, "source": _ASSUMED},
        "elementwise": {"coefficients": asdict(_ELEMENTWISE), "source": _ELEMENTWISE_SOURCE},
        "operators": {"models": [], "source": "none"},
        "all_reduce": {"gpus": all_reduce, "errors": {}, "source": "a ring over the datasheet's link; not measured"},
        "host_overhead": {"seconds": _HOST_OVERHEAD_S, "source": _HOST_OVERHEAD_SOURCE},
    }


def curve_json(curve: Curve, size: str) -> dict[str, list[float]]:
    """A curve as ``profile.json`` holds it, its sizes named by what they are."""
    return {size: list(curve.sizes), "seconds": list(curve.seconds)}


def operators_json(operators: MeasuredOperators) -> dict[str, Any]:
    """One model's operators as ``profile.json`` holds them."""
    curves = {"layer": "tokens", "once": "tokens", "sampled": "sequences"}
    return asdict(operators) | {name: curve_json(getattr(operators, name), size) for name, size in curves.items()}


def write_profile(profile: dict[str, Any], out: Path) -> Path:
    """Write ``profile.json`` into a folder, made if need be; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "profile.json"
    text = json.dumps(_rounded(profile), indent=2)
    # Lists of numbers on one line each: a table's row reads as one.
    text = re.sub(r"\[[^\[\]{}\"]+\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _rounded(value: Any) -> Any:
    """Floats to six digits: fits are no better, and the file is read by people."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _provenance(source: str, licence: str, kernels: str | None) -> dict[str, str | None]:
    unknown = dict.fromkeys(("date", "gpu_clock", "driver", "cuda", "torch"))
    return {**unknown, "source": source, "licence": licence, "kernels": kernels}
