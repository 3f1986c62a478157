"""CUDA graphs: decode steps whole, one per batch size; others between attentions, one set per number of tokens.

A step is padded to the next larger size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from l4sim.cost.captured import NONE_CAPTURED, Captured
from l4sim.specs.model import uniform_layers
from validate_gpu.live.attention import Attention
from validate_gpu.live.inputs import PageTable, StepInputs, pad_decodes
from validate_gpu.live.kv import KvMemory
from validate_gpu.live.model import Transformer

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records what a function does: returns how to do it again, and the tensor that then holds its result."""


CAPTURED_TOKENS = 2048
"""The most tokens of a step that is captured in pieces: up to here, launching it from Python may take longer than
running it. vLLM's is 512, with launches that cost less."""

_MOST_DECODES = 512


def bucket_sizes(max_num_seqs: int) -> tuple[int, ...]:
    """Batch sizes worth a graph, as vLLM's default: 1, 2, 4, multiples of 8 up to 256, of 16 up to 512, no larger."""
    largest = min(max_num_seqs, _MOST_DECODES)
    sizes = [1, 2, 4, *range(8, 257, 8), *range(272, _MOST_DECODES, 16)]
    return (*(size for size in sizes if size < largest), largest)


def piece_sizes(max_tokens: int) -> tuple[int, ...]:
    """Numbers of tokens worth capturing in pieces: multiples of 32 up to 512, of 64 up to 1,024, then of 128."""
    largest = min(max_tokens, CAPTURED_TOKENS)
    sizes = [8, 16, *range(32, 513, 32), *range(576, 1025, 64), *range(1152, CAPTURED_TOKENS + 1, 128)]
    return (*(size for size in sizes if size < largest), largest)


def captured_on(device: torch.device) -> Captured:
    """What an engine captures on a device, if its batches are not limited to less."""
    if device.type != "cuda":
        return NONE_CAPTURED
    return Captured(bucket_sizes(_MOST_DECODES), piece_sizes(CAPTURED_TOKENS))


def cuda_capture() -> Capture:
    """CUDA graphs that share their scratch memory: they never run at once, and their results are read at once."""
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def capture(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        # `torch.cuda.graph` collects garbage each time, which would take most of the time of hundreds of captures.
        with torch.cuda.stream(stream):
            # Lazy initialisation must happen before the capture.
            run()
            torch.cuda.synchronize()
            graph.capture_begin(pool=pool)
            try:
                result = run()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
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


class PieceGraphs:
    """Steps with prompts, or of kernels that cannot be captured: what lies between two attentions is, as in vLLM."""

    def __init__(self, transformer: Transformer, kv: KvMemory, sizes: Sequence[int], capture: Capture) -> None:
        """``sizes``: numbers of tokens to capture, ascending."""
        model, device, largest = transformer.model, transformer.device, sizes[-1]
        self._transformer = transformer
        self._kv = kv
        self._sizes = sizes
        self._scratch_slot = kv.scratch_page * kv.page_tokens
        self._token_ids, self._positions = (torch.zeros(largest, dtype=torch.int64, device=device) for _ in range(2))
        self._slots = torch.full((largest,), self._scratch_slot, dtype=torch.int64, device=device)
        self._rows = transformer.rows(largest)
        layer = uniform_layers(model).attention
        # Zeros: rows of padding are computed too, and must not raise what a NaN would.
        self._attended = torch.zeros(largest, layer.heads, layer.head_dim, device=device, dtype=transformer.dtype)
        self._replays = {size: self._capture(size, capture) for size in reversed(sizes)}

    def _capture(self, size: int, capture: Capture) -> list[Callable[[], None]]:
        """What lies before the first attention, and behind each."""
        transformer, kv, rows = self._transformer, self._kv, self._rows.first(size)
        slots, attended = self._slots[:size], self._attended[:size]

        def enter() -> Tensor:
            transformer.enter(self._token_ids[:size], self._positions[:size], slots, kv, rows)
            return rows.queries

        def leave(number: int) -> Tensor:
            transformer.leave(number, attended, slots, kv, rows)
            return rows.normed

        pieces: list[Callable[[], Tensor]] = [
            enter,
            *(partial(leave, number) for number in range(transformer.model.layers)),
        ]
        return [capture(piece)[0] for piece in pieces]

    def covers(self, inputs: StepInputs) -> bool:
        """Whether a step fits."""
        return len(inputs.token_ids) <= self._sizes[-1]

    def run(self, inputs: StepInputs, attention: Attention) -> Tensor:
        """Logits of the rows that sample, shape ``[samples, vocab]``, of a step that is covered."""
        count = len(inputs.token_ids)
        size = self._sizes[bisect_left(self._sizes, count)]
        for buffer, values in (
            (self._token_ids, inputs.token_ids),
            (self._positions, inputs.positions),
            (self._slots, inputs.slots),
        ):
            buffer[:count].copy_(torch.from_numpy(values))
        self._slots[count:size].fill_(self._scratch_slot)
        attention.plan(inputs.table)
        enter, *leaves = self._replays[size]
        queries, attended = self._rows.queries[:count], self._attended[:count]
        enter()
        for number, leave in enumerate(leaves):
            attention.run(queries, self._kv.keys[number], self._kv.values[number], out=attended)
            leave()
        sample_rows = torch.from_numpy(inputs.sample_rows).to(self._transformer.device)
        return self._transformer.logits(self._rows.normed[sample_rows])


def _scratch_table(size: int, scratch_page: int, page_tokens: int) -> PageTable:
    """A batch of one-token contexts on the scratch page."""
    starts = np.arange(size + 1, dtype=np.int32)
    pages = np.full(size, scratch_page, dtype=np.int32)
    return PageTable(size, starts, starts, pages, np.ones(size, dtype=np.int32), page_tokens)
