"""Layers of a decoder: what each kind of attention and of MLP holds, multiplies, moves and keeps.

A kind tells sizes, in elements: `Dtypes` makes them bytes, and `l4sim.cost` seconds. One rank of a tensor-parallel
instance has layers of the same kinds, with fewer heads and narrower MLPs (``of_rank``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from l4sim.specs.dtypes import Dtypes, size_bytes

Product = tuple[int, int]
"""``(n, k)`` of a matrix product ``[tokens, k] x [k, n]``, and so of the weights that it reads."""


@dataclass(frozen=True, slots=True)
class GroupedQuery:
    """Full attention in which groups of query heads share keys and values. Source: GQA, arXiv:2305.13245."""

    heads: int
    kv_heads: int
    head_dim: int

    elementwise_kernels: ClassVar[int] = 2
    """Rotary embedding, KV cache write."""

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Its matrix products, merged as vLLM does: QKV, output."""
        return ((self.heads + 2 * self.kv_heads) * self.head_dim, hidden), (hidden, self.heads * self.head_dim)

    @property
    def moved_elements(self) -> int:
        """Elements per token that its element-wise kernels read and write."""
        rotary = 2 * (self.heads + self.kv_heads) * self.head_dim
        return rotary + 2 * self.kv_elements

    @property
    def kv_elements(self) -> int:
        """Elements that one token adds to a layer's KV cache."""
        return 2 * self.kv_heads * self.head_dim

    def of_rank(self, ranks: int) -> GroupedQuery:
        """One rank's share; KV heads are replicated where there are fewer than ranks."""
        return GroupedQuery(self.heads // ranks, max(1, self.kv_heads // ranks), self.head_dim)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        if self.heads % ranks:
            return f"does not divide {self.heads} heads"
        if self.kv_heads % ranks and ranks % self.kv_heads:
            return f"neither divides {self.kv_heads} KV heads nor is a multiple of them"
        return None


@dataclass(frozen=True, slots=True)
class DenseMLP:
    """A gated MLP (SwiGLU, arXiv:2002.05202)."""

    intermediate: int

    elementwise_kernels: ClassVar[int] = 1
    """The activation."""

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Its matrix products, merged as vLLM does: gate and up, down."""
        return (2 * self.intermediate, hidden), (hidden, self.intermediate)

    @property
    def activation_elements(self) -> int:
        """Elements per token between its products: gate, up and what they make. Its element-wise kernel moves these."""
        return 3 * self.intermediate

    def of_rank(self, ranks: int) -> DenseMLP:
        """One rank's share."""
        return DenseMLP(self.intermediate // ranks)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return f"does not divide intermediate size {self.intermediate}" if self.intermediate % ranks else None


# Unions, with one member each so far: the type checker names every place that a further kind must be told to.
Attention = GroupedQuery
MLP = DenseMLP


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers of a model that are all alike; their order among others does not matter to sums."""

    count: int
    attention: Attention
    mlp: MLP
    dtypes: Dtypes = field(default_factory=Dtypes)

    def parameters(self, hidden: int) -> int:
        """Number of weights of all its layers (norms left out: under a thousandth)."""
        return self.count * sum(n * k for n, k in self.products(hidden))

    def weight_bytes(self, hidden: int) -> int:
        """Bytes of these weights."""
        return size_bytes(self.parameters(hidden), self.dtypes.weights)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token adds to the KV cache of all its layers."""
        return self.count * size_bytes(self.attention.kv_elements, self.dtypes.kv)

    def products(self, hidden: int) -> tuple[Product, ...]:
        """The matrix products of one layer, in the order of computation."""
        return *self.attention.products(hidden), *self.mlp.products(hidden)

    def of_rank(self, ranks: int) -> LayerGroup:
        """One rank's share of the layers."""
        return replace(self, attention=self.attention.of_rank(ranks), mlp=self.mlp.of_rank(ranks))

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share the layers evenly; None if they can."""
        return self.attention.unsplittable(ranks) or self.mlp.unsplittable(ranks)
