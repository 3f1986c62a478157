"""Attention models with round figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from l4sim.cost.attention import build_attention
from l4sim.cost.model import AttentionModel
from l4sim.specs.gpu import GPU
from tests.cost.attention.round_figures import H200, coefficients_of


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
