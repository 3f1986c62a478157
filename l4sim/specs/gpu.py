"""GPUs: what a datasheet says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from l4sim.errors import InputError
from l4sim.json_files import Count, Positive, Text

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class GPU:
    """One GPU type."""

    name: Text
    sms: Count
    """Streaming multiprocessors."""
    memory_bytes: Count
    """Device memory as the driver reports it, not as marketed."""
    memory_bytes_per_s: Positive
    """Peak HBM or GDDR bandwidth."""
    bf16_flops: Positive
    """Peak dense bf16 tensor-core rate, FLOP/s."""
    l2_bytes: Count
    link_bytes_per_s: Positive
    """One direction of the link between GPUs of one node (NVLink, else PCIe)."""
    source: Text

    @property
    def fp8_flops(self) -> float | None:
        """Peak dense FP8 tensor-core rate, FLOP/s; None: it has none, and multiplies such weights in 16 bits."""
        return _FEWER_BITS.get(self.name, _NEITHER).fp8_flops

    @property
    def fp4_flops(self) -> float | None:
        """The same of FP4."""
        return _FEWER_BITS.get(self.name, _NEITHER).fp4_flops


class _FewerBits(NamedTuple):
    """Peak dense tensor-core rates in fewer than 16 bits, FLOP/s; None where a GPU has no such arithmetic."""

    fp8_flops: float | None = None
    fp4_flops: float | None = None


_NEITHER = _FewerBits()
# By the same datasheets.
_FEWER_BITS = {
    "h200-sxm": _FewerBits(1979e12),
    "h100-sxm": _FewerBits(1979e12),
    "h800": _FewerBits(1979e12),
    "h20-141gb": _FewerBits(296e12),
    "l40-48gb": _FewerBits(362.1e12),
    "l40s": _FewerBits(733e12),
    "rtx-4090": _FewerBits(330.3e12),
    "rtx-pro-6000": _FewerBits(1007.6e12, 2015.2e12),
    "b200-sxm": _FewerBits(4500e12, 9000e12),
    "b300-sxm": _FewerBits(4500e12, 14000e12),
    "gb200": _FewerBits(5000e12, 10000e12),
    "gb300": _FewerBits(5000e12, 15000e12),
}


# Memory is what CUDA reports as total capacity (PyTorch's out-of-memory message); the rest is NVIDIA's datasheets.
_TABLE = (
    GPU(
        name="h200-sxm",
        sms=132,
        memory_bytes=int(139.80 * _GIB),
        memory_bytes_per_s=4.8e12,
        bf16_flops=989e12,
        l2_bytes=60 * (1 << 20),
        link_bytes_per_s=450e9,
        source="NVIDIA H200 datasheet (SXM, dense bf16); 139.80 GiB as CUDA reports",
    ),
    GPU(
        name="h100-sxm",
        sms=132,
        memory_bytes=int(79.11 * _GIB),
        memory_bytes_per_s=3.35e12,
        bf16_flops=989e12,
        l2_bytes=50 * (1 << 20),
        link_bytes_per_s=450e9,
        source="NVIDIA H100 datasheet (SXM5 80 GB, dense bf16); 79.11 GiB as CUDA reports",
    ),
    GPU(
        name="h20-141gb",
        sms=78,
        memory_bytes=int(139.80 * _GIB),
        memory_bytes_per_s=4.8e12,
        bf16_flops=148e12,
        l2_bytes=60 * (1 << 20),
        link_bytes_per_s=450e9,
        source="NVIDIA H20 141 GB (HBM3e) product brief; memory taken to be reported as the H200's",
    ),
    GPU(
        name="l40-48gb",
        sms=142,
        memory_bytes=int(44.40 * _GIB),
        memory_bytes_per_s=864e9,
        bf16_flops=181.05e12,
        l2_bytes=96 * (1 << 20),
        link_bytes_per_s=32e9,
        source="NVIDIA L40 datasheet (dense bf16, PCIe 4.0 x16); 44.40 GiB as CUDA reports with ECC",
    ),
    GPU(
        name="a100-80gb-sxm",
        sms=108,
        memory_bytes=int(79.25 * _GIB),
        memory_bytes_per_s=2.039e12,
        bf16_flops=312e12,
        l2_bytes=40 * (1 << 20),
        link_bytes_per_s=300e9,
        source="NVIDIA A100 datasheet (SXM4 80 GB, dense bf16); 79.25 GiB as CUDA reports",
    ),
    GPU(
        name="rtx-pro-6000",
        sms=188,
        memory_bytes=int(94.97 * _GIB),
        memory_bytes_per_s=1.597e12,
        bf16_flops=503.8e12,
        l2_bytes=128 * (1 << 20),
        link_bytes_per_s=64e9,
        source="NVIDIA RTX PRO 6000 Blackwell Server Edition datasheet (PCIe 5.0 x16; dense bf16 at fp32 accumulate, "
        "half its fp16 sparse rate); 94.97 GiB as CUDA reports",
    ),
    GPU(
        name="rtx-4090",
        sms=128,
        memory_bytes=int(23.52 * _GIB),
        memory_bytes_per_s=1.008e12,
        bf16_flops=165.2e12,
        l2_bytes=72 * (1 << 20),
        link_bytes_per_s=32e9,
        source="NVIDIA Ada architecture whitepaper (RTX 4090, dense bf16 at fp32 accumulate, PCIe 4.0 x16); 23.52 GiB "
        "as CUDA reports",
    ),
    GPU(
        name="a800",
        sms=108,
        memory_bytes=int(79.25 * _GIB),
        memory_bytes_per_s=2.039e12,
        bf16_flops=312e12,
        l2_bytes=40 * (1 << 20),
        link_bytes_per_s=200e9,
        source="NVIDIA A800 80 GB SXM: the A100 with NVLink at 400 GB/s (both directions)",
    ),
    GPU(
        name="h800",
        sms=132,
        memory_bytes=int(79.11 * _GIB),
        memory_bytes_per_s=3.35e12,
        bf16_flops=989e12,
        l2_bytes=50 * (1 << 20),
        link_bytes_per_s=200e9,
        source="NVIDIA H800 80 GB SXM: the H100 with NVLink at 400 GB/s (both directions)",
    ),
    GPU(
        name="b200-sxm",
        sms=148,
        memory_bytes=int(178.35 * _GIB),
        memory_bytes_per_s=8e12,
        bf16_flops=2250e12,
        l2_bytes=126 * (1 << 20),
        link_bytes_per_s=900e9,
        source="NVIDIA HGX B200 datasheet (dense); 178.35 GiB as CUDA reports",
    ),
    GPU(
        name="b300-sxm",
        sms=148,
        memory_bytes=int(267.7 * _GIB),
        memory_bytes_per_s=8e12,
        bf16_flops=2250e12,
        l2_bytes=126 * (1 << 20),
        link_bytes_per_s=900e9,
        source="NVIDIA HGX B300 datasheet (dense); nvidia-smi's 275,040 MiB, less what CUDA leaves out of a B200's",
    ),
    GPU(
        name="gb200",
        sms=152,
        memory_bytes=int(184.3 * _GIB),
        memory_bytes_per_s=8e12,
        bf16_flops=2500e12,
        l2_bytes=126 * (1 << 20),
        link_bytes_per_s=900e9,
        source="NVIDIA GB200 NVL72 datasheet (dense, one GPU); nvidia-smi's 189,471 MiB, less what CUDA leaves out of "
        "a B200's",
    ),
    GPU(
        name="gb300",
        sms=152,
        memory_bytes=int(276.8 * _GIB),
        memory_bytes_per_s=8e12,
        bf16_flops=2500e12,
        l2_bytes=126 * (1 << 20),
        link_bytes_per_s=900e9,
        source="NVIDIA GB300 NVL72 datasheet (dense, one GPU); nvidia-smi's 284,208 MiB, less what CUDA leaves out of "
        "a B200's",
    ),
    GPU(
        name="l40s",
        sms=142,
        memory_bytes=int(44.40 * _GIB),
        memory_bytes_per_s=864e9,
        bf16_flops=362.05e12,
        l2_bytes=96 * (1 << 20),
        link_bytes_per_s=32e9,
        source="NVIDIA L40S datasheet (dense bf16, PCIe 4.0 x16); memory as the L40's",
    ),
)

# Accelerators that are asked for by these names, and whose kernels nothing here knows.
_OTHER_MAKERS = {"mi": "AMD", "gaudi": "Intel", "tpu": "Google", "trn": "Amazon", "trainium": "Amazon"}

GPUS = {gpu.name: gpu for gpu in _TABLE}
"""Bundled GPUs by name."""


def load_gpu(name: str) -> GPU:
    """A bundled GPU by name.

    Raises:
        InputError: no GPU of that name.
    """
    if name not in GPUS:
        maker = next((maker for prefix, maker in _OTHER_MAKERS.items() if name.lower().startswith(prefix)), None)
        reason = f", {maker}'s are not modelled" if maker else ""
        raise InputError(f"no GPU '{name}'{reason}: accepted are {', '.join(GPUS)}")
    return GPUS[name]
