"""What is measured first, and what fits a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import pytest

from l4sim.specs.model import load_model
from validate_gpu.measure.estimate import GPU_SPEED, measure_s
from validate_gpu.measure.grids import CPU_GRID, GPU_GRID
from validate_gpu.measure.plan import Group, Target, ordered, plan
from validate_gpu.measure.points import AllReducePoint, AttentionPoint, KvCopyPoint, LayersPoint, Point, ProductPoint

LLAMA = load_model("llama-3.1-8b")
GPU_TARGET = Target(
    model=LLAMA,
    decode_kernels=(("flashinfer-tensor", "graph"), ("flashinfer-batch", "eager"), ("flashinfer-tensor", "eager")),
    prefill_kernels=("flashinfer-prefill",),
    mixed_kernel="flashinfer-tensor",
    kv_tokens=1 << 20,
    item_bytes=2,
    gpus=1,
)


def gpu_cost_s(point: Point) -> float:
    return measure_s(point, GPU_SPEED, item_bytes=2)


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return plan(GPU_TARGET, GPU_GRID, gpu_cost_s)


def within(points: Sequence[Point], budget_s: float) -> list[Point]:
    spent = 0.0

    def fits(point: Point) -> bool:
        nonlocal spent
        spent += gpu_cost_s(point)
        return spent <= budget_s

    return list(takewhile(fits, points))


def product(m: int) -> ProductPoint:
    return ProductPoint(m, 1, 1)


def test_cheap_groups_come_first_and_covered_topics_lose_half_of_their_worth() -> None:
    groups = [
        Group((product(1),), (("a",),)),
        Group((product(2),), (("a",),)),
        Group((product(3),), (("b",),)),
    ]
    costs = {1: 1.0, 2: 1.2, 3: 1.5}
    chosen = [group.points[0] for group in ordered(groups, lambda point: costs[point.m])]  # type: ignore[union-attr]
    # 1 is worth 1; then 3 is worth 1 / 1.5 and 2, whose topic is covered, half of 1 / 1.2.
    assert chosen == [product(1), product(3), product(2)]


@pytest.mark.slow
def test_no_point_is_planned_twice(points: list[Point]) -> None:
    keys = [(point.table, *point.columns().values()) for point in points]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
@pytest.mark.parametrize("budget_s", [60, 360])
def test_most_decodes_are_uneven_at_any_budget(points: list[Point], budget_s: float) -> None:
    patterns = Counter(
        point.pattern for point in within(points, budget_s) if isinstance(point, AttentionPoint) and not point.chunks
    )
    assert 1 - patterns["uniform"] / patterns.total() >= 0.4
    assert min(patterns.values()) > 0.15 * patterns.total()


@pytest.mark.slow
def test_a_minute_reaches_every_operator(points: list[Point]) -> None:
    first = within(points, 60)
    assert {point.table for point in first} == {
        "attention",
        "linear",
        "elementwise",
        "layers",
        "sampled",
        "iterations",
        "kv_copy",
    }
    assert {point.kernel for point in first if isinstance(point, AttentionPoint)} >= {
        "flashinfer-tensor",
        "flashinfer-batch",
        "flashinfer-prefill",
    }


def test_batch_sizes_are_dense_around_the_predicted_jumps(points: list[Point]) -> None:
    requests = {len(point.contexts) for point in within(points, 360) if isinstance(point, AttentionPoint)}
    assert requests >= {1, 31, 32, 33, 34, 131, 132, 133, 512}


def test_contexts_reach_the_models_limit_and_batches_the_memory(points: list[Point]) -> None:
    attention = [point for point in points if isinstance(point, AttentionPoint)]
    longest = max(max(point.contexts, default=0) for point in attention)
    assert LLAMA.max_model_len / 2 <= longest <= LLAMA.max_model_len
    assert max(cached + chunk for point in attention for chunk, cached in point.chunks) <= LLAMA.max_model_len
    for point in attention:
        lengths = [*point.contexts, *(chunk + cached for chunk, cached in point.chunks)]
        assert sum(lengths) <= GPU_TARGET.kv_tokens


def test_patterns_of_equal_requests_and_tokens_stand_together(points: list[Point]) -> None:
    decodes = [point for point in points if isinstance(point, AttentionPoint) and not point.chunks]
    first = decodes[0]
    together = [
        point for point in decodes if (point.kernel, point.planned) == (first.kernel, first.planned)
        and len(point.contexts) == len(first.contexts) and sum(point.contexts) == sum(first.contexts)
    ]  # fmt: skip
    assert decodes[: len(together)] == together


def test_layers_come_in_pairs(points: list[Point]) -> None:
    passes = [point for point in points if isinstance(point, LayersPoint)]
    assert all(few.tokens == many.tokens for few, many in zip(passes[::2], passes[1::2], strict=True))
    assert {point.layers for point in passes} == {0, 4}


@pytest.mark.slow
def test_several_gpus_add_sums_and_peer_copies() -> None:
    two = plan(replace(GPU_TARGET, gpus=2), GPU_GRID, gpu_cost_s)
    assert {point.gpus for point in two if isinstance(point, AllReducePoint)} == {2}
    assert {point.route for point in two if isinstance(point, KvCopyPoint)} == {"same-device", "peer"}


def test_a_short_model_is_not_asked_for_long_steps() -> None:
    short = replace(load_model("tiny"), max_model_len=512)
    target = Target(short, (("torch-cpu", "eager"),), ("torch-cpu",), "torch-cpu", 40_000, 4, 0)
    tokens = [point.tokens for point in plan(target, CPU_GRID, lambda point: 1.0) if isinstance(point, LayersPoint)]
    assert max(tokens) == 511
