"""CUDA graphs for decode-only steps: one per batch size, the next larger one padded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from validate_gpu.live.attention import Attention
from validate_gpu.live.inputs import PageTable, StepInputs, pad_decodes
from validate_gpu.live.kv import KvMemory
from validate_gpu.live.model import Transformer

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records what a function does: returns how to do it again, and the tensor that then holds its result."""


def bucket_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Batch sizes worth a graph, as vLLM's default: 1, 2, 4, multiples of 8 up to 256, of 16 up to 512, no larger."""
    largest = min(max_num_seqs, 512)
    sizes = [1, 2, 4, *range(8, 257, 8), *range(272, 512, 16)]
    return (*(size for size in sizes if size < largest), largest)


def cuda_capture() -> Capture:
    """CUDA graphs that share their scratch memory: they never run at once, and their results are read at once."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        # Lazy initialisation must happen before the capture, on another stream, as PyTorch asks.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = run()
        return graph.replay, result

    return capture


@dataclass(frozen=True, slots=True)
class _Graph:
    attention: Attention
    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    replay: Callable[[], None]
    logits: Tensor


class DecodeGraphs:
    """Captured decode steps over one KV memory; everything is allocated and captured here, nothing while serving."""

    def __init__(
        self,
        transformer: Transformer,
        kv: KvMemory,
        attention_by_size: Mapping[int, Attention],
        capture: Capture,
    ) -> None:
        """``attention_by_size``: one attention per batch size to capture."""
        self._scratch_page = kv.scratch_page
        self._sizes = sorted(attention_by_size)
        self._graphs: dict[int, _Graph] = {}
        # The largest first, whose memory the smaller ones then reuse.
        for size in reversed(self._sizes):
            self._graphs[size] = self._capture(transformer, kv, attention_by_size[size], size, capture)

    def _capture(
        self, transformer: Transformer, kv: KvMemory, attention: Attention, size: int, capture: Capture
    ) -> _Graph:
        device = transformer.device
        scratch_slot = kv.scratch_page * kv.page_tokens
        token_ids, positions = (torch.zeros(size, dtype=torch.int64, device=device) for _ in range(2))
        slots = torch.full((size,), scratch_slot, dtype=torch.int64, device=device)
        attention.plan(_scratch_table(size, kv.scratch_page, kv.page_tokens))
        replay, logits = capture(lambda: transformer.forward(token_ids, positions, slots, None, kv, attention))
        return _Graph(attention, token_ids, positions, slots, replay, logits)

    def covers(self, inputs: StepInputs) -> bool:
        """Whether a step decodes only, and fits a graph."""
        table = inputs.table
        return table.decodes == len(table.context_tokens) <= self._sizes[-1]

    def run(self, inputs: StepInputs) -> Tensor:
        """Logits of a step that is covered, shape ``[decodes, vocab]``; overwritten by the next step of its size."""
        count = len(inputs.token_ids)
        size = self._sizes[bisect_left(self._sizes, count)]
        padded = pad_decodes(inputs, size, self._scratch_page)
        graph = self._graphs[size]
        for buffer, values in (
            (graph.token_ids, padded.token_ids),
            (graph.positions, padded.positions),
            (graph.slots, padded.slots),
        ):
            buffer.copy_(torch.from_numpy(values))
        graph.attention.plan(padded.table)
        graph.replay()
        return graph.logits[:count]


def _scratch_table(size: int, scratch_page: int, page_tokens: int) -> PageTable:
    """A batch of one-token contexts on the scratch page."""
    starts = np.arange(size + 1, dtype=np.int32)
    pages = np.full(size, scratch_page, dtype=np.int32)
    return PageTable(size, starts, starts, pages, np.ones(size, dtype=np.int32), page_tokens)
