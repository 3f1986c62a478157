"""Where measured points lie, and batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill


@pytest.fixture(scope="session")
def measurements(shared: Path) -> Path:
    """The folder of aiconfigurator tables."""
    return shared / "measurements"


@pytest.fixture(scope="session")
def batch() -> Callable[..., Batch]:
    """Make a batch of decode contexts and (chunk, cached) prefills."""

    def make(contexts: list[int] | None = None, prefills: list[tuple[int, int]] | None = None) -> Batch:
        lengths = np.array(contexts or [], dtype=np.int64)
        chunks = tuple(Prefill(chunk, cached) for chunk, cached in prefills or [])
        return Batch(lengths, int(lengths.sum()), chunks)

    return make
