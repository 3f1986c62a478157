"""Whole iterations of the live engine, from inputs to sampled tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from l4sim.engine.config import EngineConfig
from l4sim.specs.model import Model
from validate_gpu.live.build import LiveOptions, build_engine
from validate_gpu.live.engine import DeviceEngine
from validate_gpu.live.inputs import PageTable, StepInputs, indptr
from validate_gpu.live.sequences import Sequences
from validate_gpu.measure.points import IterationPoint
from validate_gpu.measure.served import INSTANCES
from validate_gpu.measure.work import Work, finite

_PAGE_TOKENS = 16


class IterationWork:
    """Makes iterations runnable on a live engine, which is built for the first of them."""

    def __init__(
        self, model: Model, device: torch.device, *, kv_tokens: int, max_num_seqs: int, max_tokens: int, seed: int
    ) -> None:
        """``max_tokens``: the most tokens of one iteration."""
        self._build: Callable[[], DeviceEngine] = lambda: build_engine(
            model,
            EngineConfig(
                kv_blocks=kv_tokens // _PAGE_TOKENS,
                max_model_len=model.max_model_len,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_tokens,
                block_tokens=_PAGE_TOKENS,
                prefix_caching=False,
            ),
            1,
            LiveOptions(device=str(device), seed=seed, threads=torch.get_num_threads()),
            Sequences(model.vocab, seed),
        )
        self._engine: DeviceEngine | None = None
        self._pages = kv_tokens // _PAGE_TOKENS
        self._seed = seed

    def work(self, point: IterationPoint) -> Work:
        """One iteration; its result on the host is what ends it."""
        if self._engine is None:
            self._engine = self._build()
            generator = torch.Generator(self._engine.device).manual_seed(self._seed)
            for part in (self._engine.kv.keys, self._engine.kv.values):
                part.normal_(generator=generator)
        launch = _Iteration(self._engine, point, self._seed, self._pages)
        return Work([launch], lambda got: finite(launch.logits()))


class _Iteration:
    """A launch that every instance in turn gets inputs for, as the engine makes them, and pages of its own."""

    def __init__(self, engine: DeviceEngine, point: IterationPoint, seed: int, pages: int) -> None:
        self._engine = engine
        self._point = point
        self._seed = seed
        self._inputs = iteration_inputs(point, seed)
        needed = len(self._inputs.table.pages)
        self._first_pages = [number % max(pages // needed, 1) * needed for number in range(INSTANCES)]

    def prepare(self, instance: int) -> None:
        self._inputs = iteration_inputs(self._point, self._seed, self._first_pages[instance])

    def __call__(self) -> Tensor:
        # To the host, as the sampled tokens are.
        return self.logits().argmax(dim=-1).cpu()

    def logits(self) -> Tensor:
        return self._engine.logits(self._inputs)


def iteration_inputs(point: IterationPoint, seed: int, first_page: int = 0) -> StepInputs:
    """The arrays of a step whose requests hold the memory's pages from one on; every request samples a token."""
    rows = [(context - 1, context) for context in point.contexts]
    rows += [(cached, cached + chunk) for chunk, cached in point.chunks]
    page_counts = [-(-end // _PAGE_TOKENS) for _, end in rows]
    page_indptr = indptr(page_counts)
    query_indptr = indptr([end - start for start, end in rows])
    table = PageTable(
        decodes=len(point.contexts),
        query_indptr=query_indptr,
        page_indptr=page_indptr,
        pages=np.arange(first_page, first_page + sum(page_counts), dtype=np.int32),
        context_tokens=np.array([end for _, end in rows], dtype=np.int32),
        page_tokens=_PAGE_TOKENS,
    )
    positions = [np.arange(start, end) for start, end in rows]
    first_slots = (first_page + page_indptr[:-1].astype(np.int64)) * _PAGE_TOKENS
    return StepInputs(
        token_ids=np.random.default_rng(seed).integers(point.model.vocab, size=int(query_indptr[-1])),
        positions=np.concatenate(positions),
        slots=np.concatenate([first + at for first, at in zip(first_slots, positions, strict=True)]),
        sample_rows=query_indptr[1:].astype(np.int64) - 1,
        samplers=tuple((number, 0) for number in range(len(rows))),
        table=table,
    )
