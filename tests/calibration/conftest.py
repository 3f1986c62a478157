"""Where measured points lie; batches, and attention models with round figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention import build_attention
from l4sim.cost.model import AttentionModel
from l4sim.specs.gpu import GPU
from tests.cost.attention.round_figures import H200, coefficients_of


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


@pytest.fixture(scope="session")
def h200() -> GPU:
    return H200


@pytest.fixture(scope="session")
def coefficients() -> Callable[[str], dict[str, Any]]:
    return coefficients_of


@pytest.fixture(scope="session")
def attention() -> Callable[[str], AttentionModel]:
    """Build a model of Llama-3.1-8B's attention on an H200."""
    return lambda kernel: build_attention(kernel, coefficients_of(kernel), heads=32, kv_heads=8, head_dim=128, sms=132)
