"""The shape of one layer's attention."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.specs.dtypes import BF16_BYTES


@dataclass(frozen=True, slots=True)
class Shape:
    """Heads of one tensor-parallel rank, the SMs of its GPU, and what its CUDA graphs were captured for."""

    heads: int
    kv_heads: int
    head_dim: int
    sms: int
    graph_requests: tuple[int, ...] = ()
    """Sizes of the decode batches that are captured, ascending; empty where none is."""
    graph_tokens: int = 1
    """The context length that they are captured for, which is the longest that there may be."""

    @property
    def group_size(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token, bytes."""
        return 2 * self.kv_heads * self.head_dim * BF16_BYTES

    @property
    def query_bytes_per_token(self) -> int:
        """Queries read and outputs written for one token, bytes."""
        return 2 * self.heads * self.head_dim * BF16_BYTES
