"""Every operator but attention, made runnable on random data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

from l4sim.specs.model import Model, with_layers
from validate_gpu.live.elementwise import elementwise_on
from validate_gpu.live.inputs import PageTable
from validate_gpu.live.kv import KvMemory, copy_kv
from validate_gpu.live.model import Transformer
from validate_gpu.measure.points import (
    AllReducePoint,
    ElementwisePoint,
    KvCopyPoint,
    LayersPoint,
    ProductPoint,
    SampledPoint,
)
from validate_gpu.measure.work import Work, copies, finite, row_error

_MOST_COPIES = 64
_CHECKED_ROWS = 64
_PAGE_TOKENS = 16
# More than any step computes.
_LAYER_TOKENS = 1 << 14
_NORM_EPS = 1e-5


class NoAttention:
    """Stands in for attention where a layer is timed without it: the queries are the result."""

    def plan(self, table: PageTable) -> None:
        """Nothing to plan."""

    def run(self, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
        """The queries as they are."""
        return queries


class OperatorWork:
    """Makes points runnable on one device."""

    def __init__(self, device: torch.device, dtype: torch.dtype, *, cold_bytes: float, seed: int) -> None:
        self._device = device
        self._dtype = dtype
        self._cold_bytes = cold_bytes
        self._seed = seed
        self._generator = torch.Generator(device).manual_seed(seed)
        self._models: dict[tuple[str, int], tuple[Transformer, KvMemory]] = {}

    def product(self, point: ProductPoint) -> Work:
        """A linear layer on several weights in turn."""
        inputs = self._random(point.m, point.k)
        count = copies(point.n * point.k * self._dtype.itemsize, self._cold_bytes, _MOST_COPIES)
        weights = [self._random(point.n, point.k) * point.k**-0.5 for _ in range(count)]
        rows = torch.linspace(0, point.m - 1, min(point.m, _CHECKED_ROWS)).long().to(self._device)

        def error(got: Tensor) -> float:
            return row_error(got[rows], linear(inputs[rows].float(), weights[0].float()))

        return Work([partial(linear, inputs, weight) for weight in weights], error)

    def elementwise(self, point: ElementwisePoint) -> Work:
        """One kernel that moves data, on several buffers in turn."""
        count = copies(point.size_bytes, self._cold_bytes, _MOST_COPIES)
        buffers = [self._random(point.tokens, point.width) for _ in range(count)]
        operation = _OPERATIONS[point.operation]
        launches = [partial(operation, buffer) for buffer in buffers]
        return Work(launches, lambda got: row_error(got, operation(buffers[0].float())))

    def layers(self, point: LayersPoint) -> Work:
        """The live model without attention, one token sampled."""
        model, tokens = with_layers(point.model, point.layers), point.tokens
        transformer, kv = self._model(model)
        token_ids = torch.randint(model.vocab, (tokens,), device=self._device, generator=self._generator)
        positions = torch.arange(tokens, device=self._device)
        last = positions[-1:].clone()
        attention = NoAttention()

        def launch() -> Tensor:
            return transformer.forward(token_ids, positions, positions, last, kv, attention)

        return Work([launch], finite)

    def sampled(self, point: SampledPoint) -> Work:
        """The head's product, and the choice of the likeliest token."""
        model = point.model
        hidden = self._random(point.sequences, model.hidden)
        head = self._random(model.vocab, model.hidden) * model.hidden**-0.5

        def error(got: Tensor) -> float:
            logits = linear(hidden.float(), head.float())
            chosen = logits.gather(1, got.unsqueeze(1))
            return float((logits.max(dim=1, keepdim=True).values - chosen).max() / logits.std())

        return Work([lambda: linear(hidden, head).argmax(dim=-1)], error)

    def kv_copy(self, point: KvCopyPoint) -> Work:
        """A request's keys and values from one pool's pages to another's; ``peer``: on the next GPU."""
        pages = -(-point.tokens // _PAGE_TOKENS)
        there = torch.device("cuda", 1) if point.route == "peer" else self._device
        source, destination = (
            KvMemory(point.model, pages, _PAGE_TOKENS, device, self._dtype) for device in (self._device, there)
        )
        for part in (source.keys, source.values):
            part.normal_(generator=self._generator)
        rng = np.random.default_rng(self._seed)
        from_pages, to_pages = (rng.permutation(pages).astype(np.int32) for _ in range(2))

        def launch() -> Tensor:
            copy_kv(source, from_pages, destination, to_pages, 0, point.tokens)
            return destination.keys

        def error(_: Tensor) -> float:
            arrived = destination.read_tokens(to_pages, 0, point.tokens).to(self._device)
            return 0.0 if bool((arrived == source.read_tokens(from_pages, 0, point.tokens)).all()) else float("nan")

        return Work([launch], error)

    def all_reduce(self, point: AllReducePoint) -> Work:
        """NCCL's sum over the first GPUs, from one process."""
        count = point.size_bytes // self._dtype.itemsize
        parts = [torch.ones(count, device=f"cuda:{gpu}", dtype=self._dtype) for gpu in range(point.gpus)]
        sums = [torch.empty_like(part) for part in parts]

        def launch() -> Tensor:
            torch.cuda.nccl.all_reduce(parts, sums)  # type: ignore[no-untyped-call]
            for gpu in range(point.gpus):
                torch.cuda.synchronize(gpu)
            return sums[0]

        return Work([launch], lambda got: float((got.float() - point.gpus).abs().max()))

    def _random(self, rows: int, columns: int) -> Tensor:
        return torch.empty(rows, columns, device=self._device, dtype=self._dtype).normal_(generator=self._generator)

    def _model(self, model: Model) -> tuple[Transformer, KvMemory]:
        """A model of so many layers, and memory for the tokens that it stores."""
        key = (model.name, model.layers)
        if key not in self._models:
            tokens = min(model.max_model_len, _LAYER_TOKENS)
            transformer = Transformer(
                model,
                max_model_len=tokens,
                seed=self._seed,
                device=self._device,
                dtype=self._dtype,
                elementwise=elementwise_on(self._device),
            )
            kv = KvMemory(model, -(-tokens // _PAGE_TOKENS), _PAGE_TOKENS, self._device, self._dtype)
            self._models[key] = transformer, kv
        return self._models[key]


_OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rms-norm": lambda rows: rms_norm(rows, rows.shape[-1:], eps=_NORM_EPS),
    "silu": silu,
    "copy": torch.clone,
}
