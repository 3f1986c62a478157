"""Attention where nothing was measured: bytes over bandwidth or arithmetic over peak, whichever takes longer."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.cost.batch import Batch
from l4sim.specs.gpu import GPU

_ELEMENT_BYTES = 2


@dataclass(frozen=True, slots=True)
class RooflineAttention:
    """An ``AttentionModel`` blind to how a kernel splits a batch: only sums of lengths count. Source: ours."""

    gpu: GPU
    heads: int
    """Per tensor-parallel rank, as are ``kv_heads``."""
    kv_heads: int
    head_dim: int
    bandwidth_fraction: float
    """Assumed fraction of the peak memory bandwidth."""
    tensor_core_fraction: float
    """Assumed fraction of the peak arithmetic rate."""
    launch_s: float

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer: decodes and each prefill chunk one after the other, and a launch."""
        seconds = self.launch_s
        if batch.decode_context_sum:
            seconds += self._longer_s(batch.decode_context_sum, batch.decode_context_sum)
        for chunk in batch.prefills:
            pairs = chunk.chunk_tokens * (chunk.cached_tokens + (chunk.chunk_tokens + 1) / 2)
            seconds += self._longer_s(chunk.cached_tokens + chunk.chunk_tokens, pairs)
        return seconds

    def _longer_s(self, kv_tokens: int, pairs: float) -> float:
        """Two products per query-key pair and head; keys and values read once."""
        size_bytes = 2 * self.kv_heads * self.head_dim * _ELEMENT_BYTES * kv_tokens
        flops = 4 * self.heads * self.head_dim * pairs
        return max(
            size_bytes / (self.gpu.memory_bytes_per_s * self.bandwidth_fraction),
            flops / (self.gpu.bf16_flops * self.tensor_core_fraction),
        )
