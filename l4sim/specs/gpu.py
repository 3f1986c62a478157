"""GPUs: what a datasheet says of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GPU:
    """One GPU type."""

    name: str
    sms: int
    """Streaming multiprocessors."""
    memory_bytes: int
    """Device memory as the driver reports it, not as marketed."""
    memory_bytes_per_s: float
    """Peak HBM or GDDR bandwidth."""
    bf16_flops: float
    """Peak dense bf16 tensor-core rate, FLOP/s."""
    l2_bytes: int
    link_bytes_per_s: float
    """One direction of the link between GPUs of one node (NVLink, else PCIe)."""
    source: str
