"""Checking the parameters of synthetic traces."""

from __future__ import annotations

from l4sim.errors import InputError


def require(accepted: bool, message: str) -> None:
    """Raise InputError with ``message`` unless ``accepted``."""
    if not accepted:
        raise InputError(message)
