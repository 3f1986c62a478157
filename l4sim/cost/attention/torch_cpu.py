"""Seconds of PyTorch's attention on a CPU, request by request over gathered pages, as the live engine runs it there.

Nothing is split and nothing overlaps: the time is a sum over requests, and so affine in the batch. Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.batch import Batch
from l4sim.cost.attention.kernel import Kernel, Seconds
from l4sim.cost.attention.shape import Shape

TORCH_CPU = "torch-cpu"

CACHED_ELEMENTS = 1 << 18
"""Keys and values of one request in float32 that fit the second-level cache of a core, 1 MiB."""


@dataclass(frozen=True, slots=True)
class TorchCpuCoefficients:
    """What is fitted for one CPU; the same for all models."""

    launch_s: Seconds
    """One call for the whole batch."""
    request_s: Seconds
    """The calls of one request: gather, mask, attention."""
    kv_element_s: Seconds
    """One element of gathered keys and values."""
    spilled_element_s: Seconds
    """What one of a request takes beyond that where a core's cache does not hold it (`CACHED_ELEMENTS`)."""
    pair_element_s: Seconds
    """One element of a query head for one pair of a prompt token and a token in its context, masked ones included."""
    displaced_element_s: Seconds = 0.0
    """What the rest of a layer takes longer for one element of the batch's keys and values, up to `CACHED_ELEMENTS`:
    its weights are no longer in the core's cache. Whole iterations tell, attention alone does not."""


@dataclass(frozen=True, slots=True)
class TorchCpuAttention:
    """An ``AttentionModel``: a sum of seconds per call, request, element of keys and values, and query-key pair."""

    shape: Shape
    c: TorchCpuCoefficients

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; 0 for an empty batch."""
        requests, elements, spilled, pair_elements = work(batch, self.shape)
        if not requests:
            return 0.0
        c = self.c
        seconds = c.launch_s + c.request_s * requests + c.kv_element_s * elements + c.spilled_element_s * spilled
        return seconds + c.pair_element_s * pair_elements + c.displaced_element_s * min(elements, CACHED_ELEMENTS)


def work(batch: Batch, shape: Shape) -> tuple[int, int, int, int]:
    """What the seconds of a batch are proportional to.

    Returns its requests, the elements of their keys and values, those of these beyond a core's cache, and the elements
    of the prompts' query-key pairs.
    """
    token_elements = 2 * shape.kv_heads * shape.head_dim
    cached_tokens = CACHED_ELEMENTS // token_elements
    decodes = batch.decode_context_tokens
    context_tokens = batch.decode_context_sum
    spilled_tokens = int((decodes[decodes > cached_tokens] - cached_tokens).sum())
    pairs = 0
    for chunk_tokens, done_tokens, _ in batch.prefills:
        tokens = done_tokens + chunk_tokens
        context_tokens += tokens
        spilled_tokens += max(tokens - cached_tokens, 0)
        pairs += chunk_tokens * tokens
    requests = len(decodes) + len(batch.prefills)
    elements, spilled = context_tokens * token_elements, spilled_tokens * token_elements
    return requests, elements, spilled, pairs * shape.heads * shape.head_dim


KERNEL = Kernel(TORCH_CPU, TorchCpuCoefficients, TorchCpuAttention, in_graphs=False)
