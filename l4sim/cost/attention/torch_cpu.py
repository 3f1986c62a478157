"""Seconds of PyTorch's attention on a CPU, request by request over gathered pages, as the live engine runs it there.

Nothing is split and nothing overlaps: the time is a sum over requests, and so affine in the batch. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.cost.attention.shape import Shape
from l4sim.cost.batch import Batch

TORCH_CPU = "torch-cpu"


@dataclass(frozen=True, slots=True)
class TorchCpuCoefficients:
    """Figures of one CPU, for any shape."""

    launch_s: float
    """One call for the whole batch."""
    request_s: float
    """The calls of one request: gather, mask, attention."""
    kv_element_s: float
    """One element of gathered keys and values."""
    pair_element_s: float
    """One element of a query head for one pair of a prompt token and a token in its context, masked ones included."""


@dataclass(frozen=True, slots=True)
class TorchCpuAttention:
    """An ``AttentionModel``: a constant, requests, the elements of their contexts, and prompts' products."""

    shape: Shape
    c: TorchCpuCoefficients

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        requests, elements, pair_elements = work(batch, self.shape)
        if not requests:
            return 0.0
        c = self.c
        return c.launch_s + c.request_s * requests + c.kv_element_s * elements + c.pair_element_s * pair_elements


def work(batch: Batch, shape: Shape) -> tuple[int, int, int]:
    """What a batch asks for: requests, elements of keys and values, and elements of prompts' query-key pairs."""
    context_tokens, pairs = batch.decode_context_sum, 0
    for chunk_tokens, cached_tokens, _ in batch.prefills:
        context_tokens += cached_tokens + chunk_tokens
        pairs += chunk_tokens * (cached_tokens + chunk_tokens)
    requests = len(batch.decode_context_tokens) + len(batch.prefills)
    return requests, 2 * context_tokens * shape.kv_heads * shape.head_dim, pairs * shape.heads * shape.head_dim
