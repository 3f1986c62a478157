"""Attention points on a device: random keys and values in shuffled pages, and the float32 reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from l4sim.specs.model import Model, uniform_layers
from validate_gpu.live.inputs import PageTable, indptr
from validate_gpu.measure.kernels import Kernels
from validate_gpu.measure.points import AttentionPoint
from validate_gpu.measure.work import Work, copies, row_error

PAGE_TOKENS = 16

_MOST_COPIES = 512
# Of a chunk, so many rows are held against the reference, the first and the last among them.
_CHECKED_ROWS = 48


class AttentionWork:
    """Makes attention points runnable on one pool of random keys and values."""

    def __init__(
        self,
        model: Model,
        kernels: Kernels,
        device: torch.device,
        dtype: torch.dtype,
        *,
        kv_tokens: int,
        cold_bytes: float,
        seed: int,
    ) -> None:
        self._model = model
        self._kernels = kernels
        self._cold_bytes = cold_bytes
        self._seed = seed
        self._pages = kv_tokens // PAGE_TOKENS
        generator = torch.Generator(device).manual_seed(seed)
        layer = uniform_layers(model).attention
        shape = (self._pages, PAGE_TOKENS, layer.kv_heads, layer.head_dim)
        self._keys, self._values = (
            torch.empty(shape, device=device, dtype=dtype).normal_(generator=generator) for _ in range(2)
        )
        self._generator = generator

    def work(self, point: AttentionPoint) -> Work:
        """Plan a point's batch; every launch attends to pages of its own, as layers do."""
        table = batch_table(point, self._seed)
        count = len(table.pages)
        tokens = int(table.query_indptr[-1])
        model, keys = self._model, self._keys
        layer = uniform_layers(model).attention
        queries = torch.empty(tokens, layer.heads, layer.head_dim, device=keys.device, dtype=keys.dtype)
        queries.normal_(generator=self._generator)
        page_bytes = 2 * keys[0].numel() * keys.element_size()
        layers = min(self._pages // count, copies(count * page_bytes, self._cold_bytes, _MOST_COPIES))
        parts = [
            (self._keys[first : first + count], self._values[first : first + count])
            for first in range(0, layers * count, count)
        ]
        attention = self._kernels.attention(point)
        attention.plan(table)
        launches = [partial(attention.run, queries, *part) for part in parts]
        return Work(launches, lambda got: attention_error(got, table, queries, *parts[0]))


def batch_table(point: AttentionPoint, seed: int) -> PageTable:
    """A batch's page table, its pages shuffled over as many as it needs."""
    lengths = [*point.contexts, *(chunk + cached for chunk, cached in point.chunks)]
    page_counts = [-(-length // PAGE_TOKENS) for length in lengths]
    pages = np.random.default_rng(seed).permutation(sum(page_counts)).astype(np.int32)
    return PageTable(
        decodes=len(point.contexts),
        query_indptr=indptr([1] * len(point.contexts) + [chunk for chunk, _ in point.chunks]),
        page_indptr=indptr(page_counts),
        pages=pages,
        context_tokens=np.array(lengths, dtype=np.int32),
        page_tokens=PAGE_TOKENS,
    )


def attention_error(got: Tensor, table: PageTable, queries: Tensor, keys: Tensor, values: Tensor) -> float:
    """The largest error over all decodes and a sample of every chunk's rows; NaN if any row is not a number.

    ``got`` and ``queries`` have the shape ``[tokens, heads, head_dim]``, ``keys`` and ``values``
    ``[pages, page_tokens, kv_heads, head_dim]``.
    """
    if not bool(torch.isfinite(got).all()):
        return float("nan")
    starts, page_starts = table.query_indptr.tolist(), table.page_indptr.tolist()
    pages = torch.from_numpy(table.pages.astype(np.int64)).to(keys.device)
    worst = 0.0
    for number, context in enumerate(table.context_tokens.tolist()):
        start, end = starts[number], starts[number + 1]
        rows = np.unique(np.linspace(start, end - 1, min(end - start, _CHECKED_ROWS)).astype(np.int64))
        own = pages[page_starts[number] : page_starts[number + 1]]
        own_keys, own_values = (part[own].flatten(0, 1)[:context].float() for part in (keys, values))
        visible = (context - (end - 1 - rows)).tolist()
        index = torch.from_numpy(rows).to(keys.device)
        reference = _attend(queries[index].float(), own_keys, own_values, visible)
        worst = max(worst, row_error(got[index], reference))
    return worst


def _attend(queries: Tensor, keys: Tensor, values: Tensor, visible: Sequence[int]) -> Tensor:
    """Float32 attention of rows ``[r, heads, d]`` to the first ``visible[r]`` of ``[tokens, kv_heads, d]``."""
    rows, heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    grouped = queries.view(rows, kv_heads, heads // kv_heads, head_dim)
    scores = torch.einsum("rkgd,tkd->rkgt", grouped, keys) * head_dim**-0.5
    limits = torch.tensor(visible, device=keys.device).view(rows, 1, 1, 1)
    scores = scores.masked_fill(torch.arange(len(keys), device=keys.device) >= limits, -torch.inf)
    return torch.einsum("rkgt,tkd->rkgd", scores.softmax(dim=-1), values).reshape(rows, heads, head_dim)
