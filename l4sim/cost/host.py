"""What the host adds to an iteration's work on the device, and asynchronous scheduling does not hide."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostOverhead:
    """Seconds per iteration."""

    decode_s: float
    """Of decodes alone."""
    prompt_s: float
    """With prompts, whose steps are not captured whole."""
    sequence_s: float = 0.0
    """And for every sequence that samples a token."""
