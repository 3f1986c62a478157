"""Where measured points lie, and batches."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l4sim.cost.batch import Batch, Prefill

SHARED = Path(os.environ.get("L4SIM_SHARED", Path(__file__).resolve().parents[2] / "../shared"))


@pytest.fixture(scope="session")
def measurements() -> Path:
    """The folder of aiconfigurator tables."""
    folder = SHARED / "measurements"
    if not folder.is_dir():
        pytest.skip(f"no measurements in {folder}: set L4SIM_SHARED")
    return folder


@pytest.fixture(scope="session")
def batch() -> Callable[..., Batch]:
    """Make a batch of decode contexts and (chunk, cached) prefills."""

    def make(contexts: list[int] | None = None, prefills: list[tuple[int, int]] | None = None) -> Batch:
        lengths = np.array(contexts or [], dtype=np.int64)
        chunks = tuple(Prefill(chunk, cached) for chunk, cached in prefills or [])
        return Batch(lengths, int(lengths.sum()), chunks)

    return make
