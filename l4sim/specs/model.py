"""Models: the shape of a dense decoder-only transformer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """A dense Llama-like model with grouped-query attention and gated MLP."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_model_len: int
    """The longest context (prompt and output) in tokens that the model was made for."""
    tie_embeddings: bool = False
    dtype_bytes: int = 2

    @property
    def parameters(self) -> int:
        """Number of weights (norms left out: under a thousandth)."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        mlp = 3 * self.hidden * self.intermediate
        embeddings = self.vocab * self.hidden * (1 if self.tie_embeddings else 2)
        return self.layers * (attention + mlp) + embeddings

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, over all tensor-parallel ranks."""
        return self.parameters * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes, over all tensor-parallel ranks."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype_bytes
