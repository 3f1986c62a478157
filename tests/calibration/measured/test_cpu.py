"""Whole iterations on a CPU: what is fitted to them, and on what its errors are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.calibration.measured.cpu import fit_cpu_iterations
from l4sim.calibration.measured.folder import IterationPoint
from l4sim.calibration.measured.operators import Iterations
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.torch_cpu import CACHED_ELEMENTS, TorchCpuAttention, TorchCpuCoefficients, work
from l4sim.cost.curve import Curve
from l4sim.cost.operators import MeasuredOperators

SIZES = {"hidden": 32, "intermediate": 48, "heads": 4, "kv_heads": 2, "head_dim": 64, "vocab": 97}
SHAPE = Shape(heads=4, kv_heads=2, head_dim=64, sms=1)
LEVEL = Curve((1.0, 64.0), (1e-4, 1e-4))
OPERATORS = MeasuredOperators(**SIZES, tensor_parallel=1, layer=LEVEL, once=LEVEL, sampled=LEVEL)
ALONE = TorchCpuCoefficients(1e-5, 3e-5, 1e-9, 5e-10, 1e-10)
LAYERS, CURVES_S = 2, 4e-4
DECODES = [Batch(np.full(n, tokens), n * tokens) for n in (1, 2, 4, 8, 16) for tokens in (64, 256, 1024, 2048)]
PROMPTS = [Batch(np.empty(0, np.int64), 0, (Prefill(chunk, 0),)) for chunk in (16, 32, 48, 64)]


def within_s(batch: Batch) -> float:
    """An iteration whose attention is dearer than alone, with 2 ms of host, 3 with prompts."""
    requests, elements, spilled, pairs = work(batch, SHAPE)
    layer_s = 1e-5 + 4e-5 * requests + 2e-9 * elements + 5e-10 * spilled + 1e-10 * pairs
    layer_s += 3e-9 * min(elements, CACHED_ELEMENTS)
    return CURVES_S + LAYERS * layer_s + (3e-3 if batch.prefills else 2e-3)


def iterations(batches: list[Batch], seconds: Callable[[Batch], float] = within_s) -> list[Iterations]:
    points = [IterationPoint(LAYERS, batch, seconds(batch)) for batch in batches]
    return [Iterations(points, OPERATORS, SHAPE, TorchCpuAttention(SHAPE, ALONE))]


def test_attention_and_host_are_what_iterations_have() -> None:
    found = fit_cpu_iterations(iterations([*DECODES, *PROMPTS]), asdict(ALONE))
    assert found is not None
    assert found.attention == pytest.approx(
        {"request_s": 4e-5, "kv_element_s": 2e-9, "displaced_element_s": 3e-9}, rel=1e-6
    )
    assert (found.host.decode_s, found.host.prompt_s, found.host.sequence_s) == pytest.approx((2e-3, 3e-3, 0.0))
    assert (found.errors.points, found.errors.worst_pct) == (12, pytest.approx(0, abs=1e-6))


def test_errors_are_on_iterations_that_their_fit_has_not_seen() -> None:
    # Every second one takes twice as long, and half of it is predicted.
    slow = {id(batch) for batch in DECODES[1::2]}
    found = fit_cpu_iterations(
        iterations(DECODES, lambda batch: within_s(batch) * (1 + (id(batch) in slow))), asdict(ALONE)
    )
    assert found is not None
    assert found.errors.mape_pct == pytest.approx(50)
    assert found.host.decode_s > 2e-3


def test_without_prompts_their_host_is_the_decodes() -> None:
    found = fit_cpu_iterations(iterations(DECODES), asdict(ALONE))
    assert found is not None
    assert found.host.prompt_s == found.host.decode_s == pytest.approx(2e-3)


@pytest.mark.parametrize("batches", [DECODES[:8], PROMPTS, [DECODES[0]] * 40])
def test_too_few_decodes_tell_nothing(batches: list[Batch]) -> None:
    assert fit_cpu_iterations(iterations(batches), asdict(ALONE)) is None
