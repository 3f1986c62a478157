"""The host's share of an iteration: what asynchronous scheduling does not hide behind the device's work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostOverhead:
    """Seconds per iteration."""

    decode_s: float
    """In iterations that only decode."""
    prompt_s: float
    """In iterations with prompts, which are not captured as one CUDA graph."""
    sequence_s: float = 0.0
    """Besides, for every sequence that samples a token."""
