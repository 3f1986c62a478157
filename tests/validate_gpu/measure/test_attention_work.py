"""Attention points made runnable: FlashInfer called on stubs that check every argument, and wrong results found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from l4sim.specs.model import dense_model
from tests.validate_gpu.live.stub_flashinfer import stub_module
from validate_gpu.live.attention import TorchAttention
from validate_gpu.measure.attention_work import AttentionWork, attention_error, batch_table
from validate_gpu.measure.kernels import FlashInferKernels, Kernels, TorchKernels
from validate_gpu.measure.points import AttentionPoint, Chunk
from validate_gpu.measure.work import CheckFailedError, check

CPU = torch.device("cpu")
MODEL = dense_model(
    "small", layers=2, hidden=32, intermediate=48, heads=8, kv_heads=2, head_dim=64, vocab=97, max_model_len=4096
)


def point(kernel: str, planned: str, contexts: tuple[int, ...], chunks: tuple[Chunk, ...] = ()) -> AttentionPoint:
    return AttentionPoint(MODEL, kernel, planned, "any", contexts, chunks)


def work_of(kernels: Kernels, cold_bytes: float = 0.0, dtype: torch.dtype = torch.float32) -> AttentionWork:
    return AttentionWork(MODEL, kernels, CPU, dtype, kv_tokens=2048, cold_bytes=cold_bytes, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "planned", "contexts", "chunks", "wrapper", "tensor_cores"),
    [
        ("flashinfer-tensor", "graph", (1, 16, 17, 300), (), "Decode", True),
        ("flashinfer-cuda", "graph", (5, 40), (), "Decode", False),
        ("flashinfer-tensor", "eager", (1, 16, 17, 300), (), "Decode", True),
        ("flashinfer-cuda", "eager", (700,), (), "Decode", False),
        ("flashinfer-batch", "eager", (1, 16, 300), (), "BatchAttention", None),
        ("flashinfer-prefill", "eager", (), ((40, 0), (60, 640)), "Prefill", None),
        ("flashinfer-batch", "eager", (), ((64, 100),), "BatchAttention", None),
        ("flashinfer-tensor", "eager", (33, 90), ((70, 10),), "Prefill", None),
    ],
)
def test_every_kernel_is_called_as_it_wants_and_computes_the_reference(
    kernel: str,
    planned: str,
    contexts: tuple[int, ...],
    chunks: tuple[Chunk, ...],
    wrapper: str,
    tensor_cores: bool | None,
) -> None:
    made: list[Any] = []
    kernels = FlashInferKernels(stub_module(made), MODEL, torch.bfloat16, CPU, pages=128)
    work = work_of(kernels, dtype=torch.bfloat16).work(point(kernel, planned, contexts, chunks))
    error = work.error(work.launches[0]())
    check(error, torch.bfloat16)
    planned_wrappers = [own for own in made if own.plans]
    assert any(wrapper in type(own).__name__ for own in planned_wrappers)
    if tensor_cores is not None:
        assert [own.use_tensor_cores for own in planned_wrappers] == [tensor_cores]


@pytest.mark.slow
def test_eager_wrappers_are_made_once_and_captured_ones_per_batch() -> None:
    made: list[Any] = []
    kernels = FlashInferKernels(stub_module(made), MODEL, torch.bfloat16, CPU, pages=128)
    work = work_of(kernels, dtype=torch.bfloat16)
    for contexts in ((5,), (5, 6)):
        work.work(point("flashinfer-tensor", "eager", contexts))
    assert len(made) == 2
    for contexts in ((5,), (5, 6)):
        work.work(point("flashinfer-tensor", "graph", contexts))
    assert len(made) == 4


def test_launches_run_through_more_data_than_caches_hold() -> None:
    # 10 requests of one page of 16 tokens: 10 x 2 x 16 x 2 x 64 float32 are 163,840 bytes.
    one_page_each = point("torch-cpu", "eager", (16,) * 10)
    assert len(work_of(TorchKernels(), cold_bytes=1_000_000).work(one_page_each).launches) == 7
    assert len(work_of(TorchKernels()).work(one_page_each).launches) == 1
    # 2,048 tokens are 128 pages: room for no more than 12 copies.
    assert len(work_of(TorchKernels(), cold_bytes=1e9).work(one_page_each).launches) == 12


def test_every_launch_reads_pages_of_its_own() -> None:
    work = work_of(TorchKernels(), cold_bytes=1_000_000).work(point("torch-cpu", "eager", (16,) * 10))
    results = [launch() for launch in work.launches]
    assert all(not torch.equal(results[0], other) for other in results[1:])


def test_pages_are_shuffled_and_cover_the_batch() -> None:
    table = batch_table(point("torch-cpu", "eager", (40, 16), ((20, 5),)), seed=1)
    assert np.diff(table.page_indptr).tolist() == [3, 1, 2]
    assert sorted(table.pages.tolist()) == list(range(6))
    assert table.pages.tolist() != list(range(6))
    assert table.query_indptr.tolist() == [0, 1, 2, 22]
    assert table.context_tokens.tolist() == [40, 16, 25]


@pytest.mark.parametrize("row", [0, 2, 21])
def test_a_wrong_row_fails_the_check(row: int) -> None:
    table = batch_table(point("torch-cpu", "eager", (40, 16), ((20, 5),)), seed=1)
    torch.manual_seed(0)
    keys, values = (torch.randn(6, 16, 2, 64) for _ in range(2))
    queries = torch.randn(22, 8, 64)
    attention = TorchAttention()
    attention.plan(table)
    got = attention.run(queries, keys, values)
    check(attention_error(got, table, queries, keys, values), torch.float32)
    got[row] *= 1.01
    with pytest.raises(CheckFailedError, match=r"differs from float32 by 0\.0"):
        check(attention_error(got, table, queries, keys, values), torch.float32)


def test_one_number_missing_anywhere_fails_the_check() -> None:
    table = batch_table(point("torch-cpu", "eager", (), ((200, 0),)), seed=1)
    got = torch.zeros(200, 8, 64)
    # Between the rows that are held against the reference.
    got[1, 0, 0] = torch.nan
    error = attention_error(got, table, got, torch.zeros(13, 16, 2, 64), torch.zeros(13, 16, 2, 64))
    with pytest.raises(CheckFailedError, match="by nan"):
        check(error, torch.float32)
