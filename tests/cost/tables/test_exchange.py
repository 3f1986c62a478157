"""Sending tokens to experts: both ways, by the kernel that takes so many tokens, other sizes by their bytes."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.cost.tables.exchange import deepep_s
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError

TOKENS = np.array([1, 64, 256, 4096])
LOW, HIGH = [5e-5, 6e-5, 2e-4, np.nan], [np.nan, 3e-4, 3e-4, 2e-3]


def table(*backends: str) -> OperatorTable:
    rows = [(backend, phase) for backend in backends for phase in ("dispatch", "combine")]
    return OperatorTable(
        "all_to_all",
        {"backend": np.array([row[0] for row in rows]), "phase": np.array([row[1] for row in rows])},
        {
            name: np.full(len(rows), size)
            for name, size in (("ep", 8), ("hidden", 7168), ("per_token", 8), ("experts", 256))
        },
        {"tokens": TOKENS},
        np.array([LOW if backend == "deepep_ll" else HIGH for backend, _ in rows]),
        engine="vLLM 0.24.0",
    )


BOTH = table("deepep_ll", "deepep_ht")


def test_small_steps_take_the_low_latency_kernels_and_large_ones_the_others() -> None:
    found = deepep_s(BOTH, ranks=8, hidden=7168, per_token=8, tokens=TOKENS)
    assert found.measured
    assert found.seconds == pytest.approx([1e-4, 1.2e-4, 4e-4, 4e-3])


def test_half_as_wide_tokens_take_what_half_as_many_do_and_are_not_called_measured() -> None:
    found = deepep_s(BOTH, ranks=8, hidden=3584, per_token=8, tokens=np.array([128, 512, 8192]))
    assert not found.measured
    assert found.seconds == pytest.approx([1.2e-4, 4e-4, 4e-3])


def test_with_one_kernel_alone_it_serves_all_and_with_none_it_is_refused() -> None:
    found = deepep_s(table("deepep_ht"), ranks=8, hidden=7168, per_token=8, tokens=np.array([1, 4096]))
    assert found.seconds == pytest.approx([6e-4, 4e-3])
    with pytest.raises(InputError, match=r"all_to_all of vLLM 0\.24\.0 has no seconds of DeepEP's dispatch"):
        deepep_s(BOTH.where(backend="other"), ranks=8, hidden=7168, per_token=8, tokens=TOKENS)
