"""Every kind of point from plan to disk: on FlashInfer's stubs in bf16 as on a GPU, and on a CPU as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from l4sim.calibration.measured.folder import Measured
from l4sim.calibration.points.batches import read_batch_points
from l4sim.cost.profile import Provenance
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS
from l4sim.specs.model import dense_model, load_model
from tests.validate_gpu.live.small import with_heads
from tests.validate_gpu.live.stub_flashinfer import stub_module
from validate_gpu.live.graphs import CAPTURED_TOKENS
from validate_gpu.measure.attention_work import AttentionWork
from validate_gpu.measure.bench import DeviceLostError, NotRunError, Timers, TorchBench
from validate_gpu.measure.campaign import measure_points
from validate_gpu.measure.estimate import CPU_SPEED, measure_s
from validate_gpu.measure.grids import GPU_GRID, Grid
from validate_gpu.measure.iteration_work import IterationWork
from validate_gpu.measure.kernels import FlashInferKernels, decode_kernels, prefill_kernels
from validate_gpu.measure.operator_work import OperatorWork
from validate_gpu.measure.plan import Target, plan
from validate_gpu.measure.points import ElementwisePoint, IterationPoint, LayersPoint, ProductPoint
from validate_gpu.measure.setup import CPU_SCALE, set_up, target_of
from validate_gpu.measure.store import Store
from validate_gpu.measure.timing import HostTimer, Launch, Timing
from validate_gpu.measure.work import CheckFailedError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MODEL = dense_model(
    "small", layers=2, hidden=32, intermediate=48, heads=8, kv_heads=2, head_dim=64, vocab=97, max_model_len=1024
)
GRID = Grid(
    requests=(1, 8),
    total_tokens=(512,),
    prompts=(20,),
    cached=(0, 40),
    mixed=((2, 30, 20, 10),),
    product_rows=(1, 5),
    product_sides=(24,),
    tokens=(1, 6, 20),
    sequences=(1, 4),
    iterations=(((30, 7), ()), ((9,), ((20, 0),))),
    iteration_passes=1,
    copied_tokens=(20,),
    summed_bytes=(),
)
TABLES = {"attention", "linear", "elementwise", "layers", "sampled", "iterations", "kv_copy"}


class Named:
    """A timer that says which it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._timer = HostTimer(lambda: None, sample_s=0.0)

    def time(self, launches: Sequence[Launch]) -> Timing:
        return replace(self._timer.time(launches), timed=self._name)


def bench(dtype: torch.dtype = torch.bfloat16) -> TorchBench:
    """As on a GPU, but for the device."""
    kernels = FlashInferKernels(stub_module(), MODEL, dtype, CPU, pages=256)
    return TorchBench(
        CPU,
        dtype,
        Timers(Named("graph"), Named("stream"), Named("host"), Named("served")),
        AttentionWork(MODEL, kernels, CPU, dtype, kv_tokens=4096, cold_bytes=1e6, seed=0),
        OperatorWork(CPU, dtype, cold_bytes=1e4, seed=0),
        IterationWork(MODEL, CPU, kv_tokens=512, max_num_seqs=4, max_tokens=64, seed=0),
    )


@pytest.mark.slow
def test_everything_that_a_gpu_is_asked_for_runs_and_is_kept(tmp_path: Path) -> None:
    kernels, left_out = decode_kernels(MODEL, GPU)
    assert not left_out
    target = Target(MODEL, kernels, prefill_kernels(GPU), kernels[0][0], 4096, 2, 1)
    points = plan(target, GRID, lambda point: measure_s(point, CPU_SPEED, 2))
    provenance = Provenance(None, "a test", "Apache-2.0", None, None, None, None, None)
    store = Store(tmp_path, Measured("stub", GPUS["h200-sxm"], provenance, "flashinfer-tensor"))
    outcome = measure_points(
        points,
        bench(),
        store,
        estimate_s=lambda point: 1e-9,
        budget_s=1e9,
        now=lambda: 0.0,
        clock_mhz=lambda: 1980.0,
        progress=lambda point, measured, left_s: None,
    )
    assert outcome.failures == ()
    assert outcome.measured == len(points)
    assert {path.stem for path in tmp_path.glob("*.csv")} == TABLES
    attention = read_batch_points(tmp_path / "attention.csv", sms=132)
    assert {(point.kernel, point.planned) for point in attention} == {
        ("flashinfer-tensor", "graph"),
        ("flashinfer-cuda", "graph"),
        ("flashinfer-tensor", "eager"),
        ("flashinfer-cuda", "eager"),
        ("flashinfer-batch", "eager"),
        ("flashinfer-prefill", "eager"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "timed"),
    [
        (LayersPoint(replace(MODEL, max_model_len=4096), CAPTURED_TOKENS, 1), "graph"),
        (LayersPoint(replace(MODEL, max_model_len=4096), CAPTURED_TOKENS + 1, 1), "stream"),
        (IterationPoint(MODEL, (5,)), "served"),
        (ProductPoint(3, 8, 8), "graph"),
    ],
)
def test_what_the_live_engine_captures_is_timed_captured(point: LayersPoint | ProductPoint, timed: str) -> None:
    assert bench().measure(point).timed == timed


@pytest.mark.slow
def test_a_sample_is_the_median_and_the_quartiles(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = torch.tensor([5.0, 1.0, 2.0, 4.0, 3.0]).double().numpy()
    monkeypatch.setattr(Named, "time", lambda self, launches: Timing(seconds, "graph", launches[0]()))
    sample = bench().measure(ProductPoint(3, 8, 8))
    assert (sample.median_s, sample.spread_s, sample.repeats) == (3.0, 2.0, 5)


@pytest.mark.slow
def test_a_wrong_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(self: Named, launches: Sequence[Launch]) -> Timing:
        result: Tensor = launches[0]()
        return Timing(torch.ones(7).numpy(), "graph", 2 * result)

    monkeypatch.setattr(Named, "time", doubled)
    with pytest.raises(CheckFailedError, match=r"accepted is 0\.05"):
        bench().measure(ProductPoint(3, 8, 8))


@pytest.mark.slow
def test_what_a_kernel_library_raises_costs_its_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(self: Named, launches: Sequence[Launch]) -> Timing:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(Named, "time", out_of_memory)
    with pytest.raises(NotRunError, match="OutOfMemoryError: CUDA out of memory"):
        bench().measure(ElementwisePoint("silu", 1, 8, 32))


@pytest.mark.slow
def test_a_device_that_computes_no_more_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def illegal(*_: object, **__: object) -> Timing:
        raise RuntimeError("an illegal memory access was encountered")

    broken = bench()
    monkeypatch.setattr(Named, "time", illegal)
    monkeypatch.setattr(broken, "_device", GPU)
    monkeypatch.setattr(torch.cuda, "empty_cache", illegal)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        broken.measure(ElementwisePoint("silu", 1, 8, 32))


@pytest.mark.parametrize(("group", "kernels"), [(3, 5), (4, 5), (5, 3)])
def test_kernels_that_there_are_none_of_are_left_out_and_the_reason_is_told(group: int, kernels: int) -> None:
    pairs, left_out = decode_kernels(with_heads(load_model("llama-3.1-8b"), heads=8 * group), GPU)
    assert len(pairs) == kernels
    assert pairs[0] == ("flashinfer-tensor", "graph")
    assert ["no kernel for 5 query heads" in text for text in left_out] == ([True] if group == 5 else [])


def test_a_head_size_without_kernels_is_refused() -> None:
    with pytest.raises(InputError, match="no kernels for head_dim 96, accepted are 64, 128, 256"):
        decode_kernels(with_heads(MODEL, head_dim=96), GPU)


@pytest.mark.slow
def test_a_cpu_measures_the_live_engines_own_attention() -> None:
    tiny, scale = load_model("tiny"), replace(CPU_SCALE, kv_tokens=1024)
    target, _ = target_of(CPU, tiny, scale)
    assert target.decode_kernels == (("torch-cpu", "eager"),)
    point = next(point for point in plan(target, GPU_GRID, lambda point: 1.0) if point.table == "attention")
    sample = set_up(CPU, tiny, scale, seed=0, slowness=lambda seconds: 2.0).measure(point)
    assert (sample.timed, sample.slowness) == ("host", 2.0)
    assert sample.repeats >= 7
    assert 0 < sample.reference_error < 1e-4
