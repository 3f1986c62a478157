"""Which points to measure, and in which order: first those that tell most per second of measuring."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from l4sim.specs.model import Model, uniform_layers
from validate_gpu.measure.grids import Grid
from validate_gpu.measure.patterns import PATTERNS, spread
from validate_gpu.measure.points import (
    AllReducePoint,
    AttentionPoint,
    Chunk,
    ElementwisePoint,
    IterationPoint,
    KvCopyPoint,
    LayersPoint,
    Point,
    ProductPoint,
    SampledPoint,
)

# So many layers, and none at all: enough that their weights push each other out of a CPU's caches as a model's do.
_LAYERS = 4
_ELEMENTWISE = ("rms-norm", "silu", "copy")


@dataclass(frozen=True, slots=True)
class Target:
    """The model, kernels and memory that points are planned for."""

    model: Model
    decode_kernels: tuple[tuple[str, str], ...]
    """(kernel, planned) pairs, the served one first."""
    prefill_kernels: tuple[str, ...]
    mixed_kernel: str
    kv_tokens: int
    """Tokens that the memory for keys and values of one layer holds."""
    item_bytes: int
    gpus: int
    """GPUs that can be summed over or copied between; 0 on a CPU."""


@dataclass(frozen=True, slots=True)
class Group:
    """Points that are of use only together, and the topics that they tell about."""

    points: tuple[Point, ...]
    topics: tuple[tuple[object, ...], ...]
    """A topic that earlier groups have covered n times is worth 1 / (1 + n)."""
    weight: float = 1.0


def plan(target: Target, grid: Grid, cost_s: Callable[[Point], float]) -> list[Point]:
    """All points worth measuring, ordered by information per second.

    ``cost_s`` estimates the seconds to measure a point. Decode batches come in groups of equal requests and tokens, one
    per pattern, so that what unequal lengths cost can be read off at any stopping point.
    """
    groups = [*_decodes(target, grid), *_prompts(target, grid), *_products(target, grid), *_others(target, grid)]
    return [point for group in ordered(groups, cost_s) for point in group.points]


def ordered(groups: Sequence[Group], cost_s: Callable[[Point], float]) -> Iterable[Group]:
    """Greedy: always the group that now tells most per second.

    What a group tells only falls as others are chosen, so that a stale value at the top of the heap is an upper bound.
    """
    costs = [sum(map(cost_s, group.points)) for group in groups]
    covered: Counter[tuple[object, ...]] = Counter()

    def value(number: int) -> float:
        topics = groups[number].topics
        return groups[number].weight * sum(1 / (1 + covered[topic]) for topic in topics) / len(topics) / costs[number]

    heap = [(-value(number), number) for number in range(len(groups))]
    heapq.heapify(heap)
    while heap:
        _, number = heap[0]
        current = -value(number)
        if current > heap[0][0]:
            heapq.heapreplace(heap, (current, number))
            continue
        heapq.heappop(heap)
        covered.update(groups[number].topics)
        yield groups[number]


def _decodes(target: Target, grid: Grid) -> Iterable[Group]:
    model = target.model
    for kernel, planned in target.decode_kernels:
        for requests in grid.requests:
            for total in grid.total_tokens:
                if not _fits(target, [total // requests + 1] * requests):
                    continue
                spreads = ((pattern, spread(pattern, requests, total, model.max_model_len)) for pattern in PATTERNS)
                points = tuple(
                    AttentionPoint(model, kernel, planned, pattern, contexts)
                    for pattern, contexts in spreads
                    if contexts is not None
                )
                if points:
                    topics = ((kernel, planned, "requests", requests), (kernel, planned, "tokens", total), (kernel,))
                    # A captured kernel's eager plans are a side issue: they are what captures are compared with.
                    side = planned == "eager" and (kernel, "graph") in target.decode_kernels
                    yield Group(points, topics, weight=len(points) * (0.3 if side else 2.0))


def _prompts(target: Target, grid: Grid) -> Iterable[Group]:
    model = target.model
    for kernel in target.prefill_kernels:
        for chunk in grid.prompts:
            for cached in grid.cached:
                if chunk + cached <= model.max_model_len and _fits(target, [chunk + cached]):
                    topics = ((kernel, "chunk", chunk), (kernel, "cached", cached), (kernel,))
                    yield Group((_prompt(target, kernel, (), ((chunk, cached),)),), topics, weight=2.0)
            four = ((chunk, 0),) * 4
            if 4 * chunk <= max(grid.prompts) and _fits(target, [chunk] * 4):
                yield Group((_prompt(target, kernel, (), four),), ((kernel, "four", chunk), (kernel,)), weight=2.0)
    for requests, context, chunk, cached in grid.mixed:
        lengths = [context] * requests + [chunk + cached]
        if max(lengths) <= model.max_model_len and _fits(target, lengths):
            point = _prompt(target, target.mixed_kernel, (context,) * requests, ((chunk, cached),))
            yield Group((point,), (("mixed", requests), ("mixed", chunk)))


def _prompt(target: Target, kernel: str, contexts: tuple[int, ...], chunks: tuple[Chunk, ...]) -> AttentionPoint:
    return AttentionPoint(target.model, kernel, "eager", "mixed" if contexts else "prompts", contexts, chunks)


def _products(target: Target, grid: Grid) -> Iterable[Group]:
    model = target.model
    own = (*uniform_layers(model).products(model.hidden), (model.vocab, model.hidden))
    others = tuple((n, k) for n in grid.product_sides for k in grid.product_sides)
    for n, k in dict.fromkeys((*own, *others)):
        for m in grid.product_rows:
            # The head's rows are sampled sequences, few of them.
            if n != model.vocab or m <= max(grid.sequences):
                topics = (("product", n, k), ("product", m), ("product",))
                yield Group((ProductPoint(m, n, k),), topics, weight=2.0 if (n, k) in own else 1.0)


def _others(target: Target, grid: Grid) -> Iterable[Group]:
    model = target.model
    tokens_of_step = [tokens for tokens in grid.tokens if tokens <= model.max_model_len]
    for operation in _ELEMENTWISE:
        for tokens in tokens_of_step:
            # Each is read once and written once.
            point = ElementwisePoint(operation, tokens, model.hidden, 2 * tokens * model.hidden * target.item_bytes)
            yield Group((point,), (("elementwise", operation), ("elementwise", tokens)))
    for tokens in tokens_of_step:
        passes = tuple(LayersPoint(model, tokens, layers) for layers in (0, min(_LAYERS, model.layers)))
        yield Group(passes, (("layers", tokens),), weight=_ends(tokens, tokens_of_step))
    for sequences in grid.sequences:
        yield Group(
            (SampledPoint(model, sequences),), (("sampled", sequences),), weight=_ends(sequences, grid.sequences)
        )
    for contexts, chunks in grid.iterations * grid.iteration_passes:
        yield Group((IterationPoint(model, contexts, chunks),), (("iteration", contexts, chunks),), weight=6.0)
    routes = ("same-device", "peer") if target.gpus > 1 else ("same-device",)
    for route in routes:
        for tokens in grid.copied_tokens:
            yield Group((KvCopyPoint(model, tokens, route),), (("copy", route, tokens),))
    for gpus in (2, 4, 8):
        if gpus <= target.gpus:
            for size_bytes in grid.summed_bytes:
                yield Group((AllReducePoint(gpus, size_bytes),), (("sum", gpus, size_bytes),), weight=2.0)


def _ends(size: int, sizes: Sequence[int]) -> float:
    """A group's weight: the smallest and the largest size come first, as a curve says nothing beyond its ends."""
    return 60.0 if size in (min(sizes), max(sizes)) else 20.0


def _fits(target: Target, lengths: Sequence[int], page_tokens: int = 16) -> bool:
    """Whether the pages of a batch fit the memory for keys and values."""
    return sum(-(-length // page_tokens) for length in lengths) * page_tokens <= target.kv_tokens
