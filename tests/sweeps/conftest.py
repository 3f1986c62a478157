"""Sweeps small enough to run in a blink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from l4sim.sweeps.grid import expand, grid_axes
from l4sim.sweeps.points import Point

TINY: dict[str, Any] = {
    "policies": "round-robin",
    "model": "tiny",
    "instances": 2,
    "kv_blocks": 4096,
    "synth": {"prompt_lengths": "fixed:tokens=200", "output_lengths": "fixed:tokens=20", "requests": 10, "rate": 5},
}
"""Ten requests of 200 prompt and 20 output tokens."""


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """A grid of one point."""
    return TINY


@pytest.fixture(scope="session")
def make_points() -> Callable[..., list[Point]]:
    """The points of the tiny grid, with other keys in it."""

    def build(slo: str | None = None, **changed: Any) -> list[Point]:
        return [Point(settings, slo) for settings in expand(grid_axes({**TINY, **changed}))]

    return build
