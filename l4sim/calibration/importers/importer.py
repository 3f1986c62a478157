"""What an importer is: a kind of file or folder, and a profile made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4sim.specs.gpu import GPU
from l4sim.specs.model import Model


@dataclass(frozen=True, slots=True)
class Given:
    """What a source does not say of itself; None where it was not given."""

    model: Model | None = None
    """The model that was measured."""
    tensor_parallel: int | None = None
    """GPUs per instance."""
    host_overhead_s: float | None = None
    """Seconds of every iteration that the host takes."""


@dataclass(frozen=True, slots=True)
class Importer:
    """One kind of measurements that others publish."""

    name: str
    reads: Callable[[Path], bool]
    """Whether a file or folder, which is there, is of this kind."""
    load: Callable[[Path, GPU, Given], dict[str, Any]]
    """What ``profile.json`` holds. Raises InputError for what cannot be read, naming file and line."""
    asks: bool = False
    """Whether it takes what `Given` holds; others say it themselves."""
