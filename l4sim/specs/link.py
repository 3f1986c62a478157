"""Links: how fast one GPU, or one instance, sends to another."""

from __future__ import annotations

import re
from dataclasses import dataclass

from l4sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a link between two GPUs."""

    name: str
    bytes_per_s: float
    latency_s: float
    """Seconds from the first byte's departure to its arrival, software included."""
    source: str = "as given"

    def transfer_s(self, size_bytes: float) -> float:
        """Seconds that ``size_bytes`` take on an idle link."""
        return self.latency_s + size_bytes / self.bytes_per_s

    def __str__(self) -> str:
        if _GIVEN.fullmatch(self.name):
            return self.name
        return f"{self.name} ({self.bytes_per_s / 1e9:.4g} GB/s, {self.latency_s * 1e6:.3g} us)"


_FITTED = "fitted to an all-reduce between 2 {cards}, {tables} (`l4sim profile links`)"

# Latencies of the first and the last are ours, of the order that NCCL and NIXL report for a transfer between processes.
LINKS = {
    link.name: link
    for link in (
        Link("nvlink", 450e9, 10e-6, "NVLink 4 per GPU, 18 lanes of 25 GB/s (datasheet); latency ours"),
        Link("nvlink-4", 263e9, 2.16e-6, _FITTED.format(cards="H100 SXM", tables="vLLM 0.24.0")),
        Link("pcie", 14.4e9, 5.88e-6, _FITTED.format(cards="RTX PRO 6000 without peer access", tables="vLLM 0.19.0")),
        Link("pcie-4-p2p", 19.4e9, 2.66e-6, _FITTED.format(cards="L40S with peer access", tables="vLLM 0.14.0")),
        Link(
            "pcie-5-p2p", 38.2e9, 2.17e-6, _FITTED.format(cards="RTX PRO 6000 with peer access", tables="vLLM 0.24.0")
        ),
        Link("network-400g", 50e9, 20e-6, "one 400 Gbit/s port per GPU (datasheet); latency ours"),
    )
}
"""Bundled links by name. ``pcie`` is what cards reach through the host's memory, where they have no peer access."""

_GIVEN = re.compile(r"(?P<rate>\d+(?:\.\d+)?)(?P<prefix>[KMGT])B/s,(?P<latency>\d+(?:\.\d+)?)(?P<unit>ns|us|ms|s)")
_RATES = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def load_link(text: str) -> Link:
    """A bundled link by name, or one by its bandwidth and latency, as in ``28GB/s,10us``.

    Raises:
        InputError: neither.
    """
    if text in LINKS:
        return LINKS[text]
    given = _GIVEN.fullmatch(text.replace(" ", "").replace("µ", "u"))
    rate = float(given["rate"]) * _RATES[given["prefix"]] if given else 0.0
    if given is None or rate <= 0:
        raise InputError(f"no link '{text}': accepted are {', '.join(LINKS)}, or bandwidth and latency as 28GB/s,10us")
    return Link(given[0], rate, float(given["latency"]) * _SECONDS[given["unit"]])
