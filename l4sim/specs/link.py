"""Links: how fast one GPU, or one instance, sends to another."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a link between two GPUs."""

    name: str
    bytes_per_s: float
    latency_s: float
    """Seconds from the first byte's departure to its arrival, software included."""

    def transfer_s(self, size_bytes: float) -> float:
        """Seconds that ``size_bytes`` take on an idle link."""
        return self.latency_s + size_bytes / self.bytes_per_s


# Bandwidths are the specifications'; latencies are ours, of the order that NCCL and NIXL report.
LINKS = {
    link.name: link
    for link in (
        Link("nvlink", bytes_per_s=450e9, latency_s=10e-6),
        Link("pcie", bytes_per_s=32e9, latency_s=15e-6),
        Link("network-400g", bytes_per_s=50e9, latency_s=20e-6),
    )
}
"""NVLink 4 per GPU (18 lanes of 25 GB/s), PCIe 4.0 x16, and one 400 Gbit/s network port per GPU."""


def load_link(name: str) -> Link:
    """A bundled link by name.

    Raises:
        InputError: no link of that name.
    """
    if name not in LINKS:
        raise InputError(f"no link '{name}': accepted are {', '.join(LINKS)}")
    return LINKS[name]
