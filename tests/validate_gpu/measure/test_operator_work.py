"""Every operator but attention on a CPU: right results pass, wrong ones are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from l4sim.specs.model import dense_model
from validate_gpu.measure.iteration_work import IterationWork, iteration_inputs
from validate_gpu.measure.operator_work import OperatorWork
from validate_gpu.measure.points import (
    ElementwisePoint,
    IterationPoint,
    KvCopyPoint,
    LayersPoint,
    ProductPoint,
    SampledPoint,
)
from validate_gpu.measure.work import CheckFailedError, Work, check

CPU = torch.device("cpu")
MODEL = dense_model(
    "small", layers=2, hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=16, vocab=97, max_model_len=128
)
F32 = torch.float32


@pytest.fixture
def operators() -> OperatorWork:
    return OperatorWork(CPU, F32, cold_bytes=0.0, seed=0)


def test_a_product_is_held_against_float32(operators: OperatorWork) -> None:
    work = operators.product(ProductPoint(m=5, n=24, k=32))
    got = work.launches[0]()
    assert got.shape == (5, 24)
    check(work.error(got), F32)
    got[4, 3] += 1.0
    with pytest.raises(CheckFailedError):
        check(work.error(got), F32)


def test_weights_change_from_launch_to_launch_until_caches_are_full() -> None:
    # 24 x 32 float32 are 3,072 bytes.
    operators = OperatorWork(CPU, F32, cold_bytes=9_000.0, seed=0)
    work = operators.product(ProductPoint(m=5, n=24, k=32))
    assert len(work.launches) == 3
    assert not torch.equal(work.launches[0](), work.launches[1]())


@pytest.mark.parametrize("operation", ["rms-norm", "silu", "copy"])
def test_elementwise_operators_are_held_against_float32(operators: OperatorWork, operation: str) -> None:
    work = operators.elementwise(ElementwisePoint(operation, 6, 32, 1536))
    got = work.launches[0]()
    assert got.shape == (6, 32)
    check(work.error(got), F32)
    with pytest.raises(CheckFailedError):
        check(work.error(got + 0.1), F32)


def test_a_norm_leaves_rows_of_unit_mean_square(operators: OperatorWork) -> None:
    got = operators.elementwise(ElementwisePoint("rms-norm", 6, 32, 1536)).launches[0]()
    assert got.square().mean(dim=1).tolist() == pytest.approx([1.0] * 6, rel=1e-3)


def test_the_likeliest_token_is_chosen(operators: OperatorWork) -> None:
    work = operators.sampled(SampledPoint(MODEL, 7))
    got = work.launches[0]()
    assert got.shape == (7,)
    check(work.error(got), F32)
    with pytest.raises(CheckFailedError):
        check(work.error((got + 1) % 97), F32)


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_run_on_as_many_tokens_and_sample_one(operators: OperatorWork, layers: int) -> None:
    work = operators.layers(LayersPoint(MODEL, 12, layers))
    got = work.launches[0]()
    assert got.shape == (1, 97)
    assert work.error(got) == 0.0


def test_keys_and_values_arrive_on_other_pages(operators: OperatorWork) -> None:
    work: Work = operators.kv_copy(KvCopyPoint(MODEL, 40, "same-device"))
    with pytest.raises(CheckFailedError):
        check(work.error(torch.empty(0)), F32)
    work.launches[0]()
    check(work.error(torch.empty(0)), F32)


def test_an_iteration_has_the_live_engines_inputs() -> None:
    inputs = iteration_inputs(IterationPoint(MODEL, (17, 1), ((20, 30),)), seed=0)
    # Pages 0-1, 2 and 3-6; the new tokens stand at the ends of their contexts.
    assert inputs.table.page_indptr.tolist() == [0, 2, 3, 7]
    assert inputs.table.query_indptr.tolist() == [0, 1, 2, 22]
    assert inputs.table.context_tokens.tolist() == [17, 1, 50]
    assert inputs.positions.tolist() == [16, 0, *range(30, 50)]
    assert inputs.slots.tolist() == [16, 32, *range(48 + 30, 48 + 50)]
    assert inputs.sample_rows.tolist() == [0, 1, 21]
    assert inputs.table.decodes == 2
    assert len(inputs.token_ids) == 22
    assert inputs.token_ids.max() < 97


def test_an_iteration_runs_on_a_live_engine_that_is_built_once() -> None:
    iterations = IterationWork(MODEL, CPU, kv_tokens=512, max_num_seqs=4, max_tokens=64, seed=0)
    first = iterations.work(IterationPoint(MODEL, (17, 1), ((20, 30),)))
    got = first.launches[0]()
    assert got.shape == (3,)
    assert got.device == CPU
    assert first.error(got) == 0.0
    engine = iterations._engine
    iterations.work(IterationPoint(MODEL, (9,)))
    assert iterations._engine is engine
    assert engine is not None
    assert np.isfinite(engine.kv.keys.numpy()).all()
    assert engine.kv.keys.std() > 0.5
