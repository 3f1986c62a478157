"""Kinds of softmax attention: what each holds, multiplies, moves and keeps; sizes in elements but where said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from l4sim.specs.dtypes import Dtypes, size_bytes
from l4sim.specs.matrix import Kept, Matrix, Product

# An indexer's key in vLLM's cache: FP8, with a float32 scale for every 128 elements.
_INDEXER_SCALE_BYTES, _INDEXER_BLOCK = 4, 128


@dataclass(frozen=True, slots=True)
class GroupedQuery:
    """Full attention in which groups of query heads share keys and values. Source: GQA, arXiv:2305.13245."""

    heads: int
    kv_heads: int
    head_dim: int
    normed_over_heads: bool = False
    """Whether queries and keys are normed over all heads together (MiniMax-M2), so that ranks add up their squares:
    vLLM 0.32, `MiniMaxText01RMSNormTP`. A head's own norm is one kernel with the rotary embedding, once compiled."""

    kind: ClassVar[str] = "grouped-query attention"

    @property
    def sizes(self) -> dict[str, int]:
        """Heads and their dimension, by name."""
        return {"heads": self.heads, "kv_heads": self.kv_heads, "head_dim": self.head_dim}

    @property
    def elementwise_kernels(self) -> int:
        """Rotary embedding, KV cache write; the norm's squares, and what it is applied to."""
        return 4 if self.normed_over_heads else 2

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Its weights, merged as vLLM does: QKV, output."""
        return (
            Matrix("qkv", (self.heads + 2 * self.kv_heads) * self.head_dim, hidden),
            Matrix("output", hidden, self.heads * self.head_dim),
        )

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Its matrix products."""
        return tuple((matrix.n, matrix.k) for matrix in self.matrices(hidden))

    @property
    def moved_elements(self) -> int:
        """Elements per token that its element-wise kernels read and write."""
        rotary = 2 * (self.heads + self.kv_heads) * self.head_dim
        normed = 3 * (self.heads + self.kv_heads) * self.head_dim if self.normed_over_heads else 0
        return rotary + normed + 2 * self.kv_elements

    @property
    def kv_elements(self) -> int:
        """Elements that one token adds to a layer's KV cache."""
        return 2 * self.kv_heads * self.head_dim

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """Keys and values of every token."""
        return (Kept(size_bytes(self.kv_elements, dtypes.kv)),)

    def of_rank(self, ranks: int) -> GroupedQuery:
        """One rank's share; KV heads are replicated where there are fewer than ranks."""
        return replace(self, heads=self.heads // ranks, kv_heads=max(1, self.kv_heads // ranks))

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return _unsplittable_heads(self.heads, self.kv_heads, ranks)


@dataclass(frozen=True, slots=True)
class VariedQuery:
    """Grouped-query attention with what newer models vary about it.

    Sliding windows as in Mistral, Gemma and gpt-oss (arXiv:2310.06825); chunks as in Llama 4, which attends to its
    own chunk alone; output gates as in Qwen3-Next; narrower values as in MiMo-V2; keys that are the values too as in
    Gemma 4's full layers; an index over blocks as in MiniMax-M3.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window_tokens: int | None = None
    chunked: bool = False
    """Whether the window is the token's own chunk of so many, and does not slide."""
    gate_dim: int = 0
    """Columns per head of the output's gate: 0 for none, 1 for one per head, or as many as values."""
    one_projection: bool = False
    """Whether keys and values are made by one projection; the cache holds both still."""
    index_heads: int = 0
    """Heads of the index that chooses which blocks of keys are seen; 0 for none."""
    index_dim: int = 0

    @property
    def elementwise_kernels(self) -> int:
        """Rotary embedding, KV cache write, the gate."""
        return 3 if self.gate_dim else 2

    @property
    def moved_elements(self) -> int:
        """Elements per token that these read and write."""
        rotary = 2 * (self.heads + self.kv_heads) * self.head_dim
        gated = (2 * self.value_dim + self.gate_dim) * self.heads if self.gate_dim else 0
        return rotary + 2 * self.kv_heads * (self.head_dim + self.value_dim) + gated

    @property
    def kind(self) -> str:
        """What it is called."""
        if self.index_heads:
            return "block-sparse attention"
        if self.window_tokens is not None:
            return "chunked attention" if self.chunked else "sliding-window attention"
        return "gated attention" if self.gate_dim else "grouped-query attention of unequal keys and values"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """QKV, the gate, output, the index's queries and keys."""
        values = 0 if self.one_projection else self.value_dim
        columns = self.heads * self.head_dim + self.kv_heads * (self.head_dim + values)
        found = (
            Matrix("qkv", columns, hidden),
            Matrix("gate", self.heads * self.gate_dim, hidden),
            Matrix("output", hidden, self.heads * self.value_dim),
            Matrix("index", self.index_heads * self.index_dim + self.index_dim, hidden),
        )
        return tuple(matrix for matrix in found if matrix.n)

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """Keys and values of every token in the window, and the index's keys, of which vLLM keeps one head in bf16."""
        elements = self.kv_heads * (self.head_dim + self.value_dim)
        keys = Kept(size_bytes(elements, dtypes.kv), self.window_tokens)
        return (keys, Kept(size_bytes(self.index_dim, dtypes.activations))) if self.index_heads else (keys,)

    def of_rank(self, ranks: int) -> VariedQuery:
        """One rank's share; KV heads are replicated where there are fewer than ranks."""
        return replace(
            self,
            heads=self.heads // ranks,
            kv_heads=max(1, self.kv_heads // ranks),
            index_heads=-(-self.index_heads // ranks),
        )

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return _unsplittable_heads(self.heads, self.kv_heads, ranks)


@dataclass(frozen=True, slots=True)
class Indexer:
    """What chooses the tokens that sparse latent attention sees. Source: DeepSeek-V3.2, arXiv:2512.02556."""

    heads: int
    head_dim: int
    pool_tokens: int = 1
    """How many neighbouring tokens share a key, pooled by a gate of their own (GLM-5.3-Flash); 1: none."""

    def matrices(self, hidden: int, query_rank: int) -> tuple[Matrix, ...]:
        """Its queries, its keys, the weights of its heads, the pool's gate."""
        found = (
            Matrix("index_query", self.heads * self.head_dim, query_rank),
            Matrix("index_key", self.head_dim, hidden),
            Matrix("index_weights", self.heads, hidden),
        )
        return (*found, Matrix("index_weights", self.head_dim, hidden)) if self.pool_tokens > 1 else found

    @property
    def key_bytes(self) -> int:
        """Of one token in vLLM's cache of keys, whatever the KV cache's format."""
        return self.head_dim + -(-self.head_dim // _INDEXER_BLOCK) * _INDEXER_SCALE_BYTES


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: a token keeps one latent vector for all heads (DeepSeek-V2, arXiv:2405.04434).

    With an indexer it is sparse: a token sees the tokens that the indexer chose.
    """

    heads: int
    query_rank: int | None
    """Rank of the queries' projection; None if they are projected at once."""
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    indexer: Indexer | None = None
    shared_index: bool = False
    """Whether it sees the tokens that an earlier layer's indexer chose."""
    gated: bool = False

    # Measured as whole modules, with the element-wise kernels in them.
    elementwise_kernels: ClassVar[int] = 0
    moved_elements: ClassVar[int] = 0

    @property
    def kind(self) -> str:
        """What it is called."""
        sparse = self.indexer is not None or self.shared_index
        return "sparse latent attention" if sparse else "latent attention"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries and latent down, queries up, keys and values up, the gate, output, the indexer's."""
        head_dim = self.nope_dim + self.rope_dim
        query = (
            (Matrix("query", self.heads * head_dim, hidden),)
            if self.query_rank is None
            else (
                Matrix("query_down", self.query_rank, hidden),
                Matrix("query_up", self.heads * head_dim, self.query_rank),
            )
        )
        gate = (Matrix("gate", self.heads * self.value_dim, hidden),) if self.gated else ()
        return (
            *query,
            Matrix("latent", self.kv_rank + self.rope_dim, hidden),
            Matrix("latent_up", self.heads * (self.nope_dim + self.value_dim), self.kv_rank),
            *gate,
            Matrix("output", hidden, self.heads * self.value_dim),
            *(self.indexer.matrices(hidden, self.query_rank or hidden) if self.indexer else ()),
        )

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """The latent vector of every token, and the indexer's key.

        Sparse latent KV in FP8 has vLLM's layout ``fp8_ds_mla``: scales for every 128 elements, and rotary keys in
        bf16.
        """
        latent = Kept(size_bytes(self.kv_rank + self.rope_dim, dtypes.kv))
        if (self.indexer is not None or self.shared_index) and dtypes.kv == "fp8":
            latent = Kept(self.kv_rank + self.kv_rank // 128 * 4 + size_bytes(self.rope_dim, dtypes.activations))
        if self.indexer is None:
            return (latent,)
        return latent, Kept(self.indexer.key_bytes, tokens_per_entry=self.indexer.pool_tokens)

    def of_rank(self, ranks: int) -> Latent:
        """One rank's share of the heads; latent vectors and the indexer are replicated."""
        return replace(self, heads=self.heads // ranks)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return f"does not divide {self.heads} heads" if self.heads % ranks else None


@dataclass(frozen=True, slots=True)
class CompressedLatent:
    """A window of latent vectors, and older tokens compressed, several to one. Source: DeepSeek-V4's ``config.json``.

    As transformers' `deepseek_v4` has it: keys are values, of one head; the output is projected by groups of heads.
    """

    heads: int
    head_dim: int
    query_rank: int
    output_groups: int
    output_rank: int
    window_tokens: int
    tokens_per_entry: int
    """How many older tokens one compressed entry stands for; 0: they are not seen."""
    overlapping: bool = False
    """Whether an entry overlaps its neighbour, and so is made by twice as many weights."""
    indexer: Indexer | None = None

    kind: ClassVar[str] = "compressed latent attention"
    elementwise_kernels: ClassVar[int] = 0
    moved_elements: ClassVar[int] = 0

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries down and up, latent, output by groups, the compressor's and its indexer's."""
        found = [
            Matrix("query_down", self.query_rank, hidden),
            Matrix("query_up", self.heads * self.head_dim, self.query_rank),
            Matrix("latent", self.head_dim, hidden),
            Matrix(
                "output_down", self.output_groups * self.output_rank, self.heads * self.head_dim // self.output_groups
            ),
            Matrix("output", hidden, self.output_groups * self.output_rank),
        ]
        made = 2 if self.overlapping else 1
        if self.tokens_per_entry:
            found.append(Matrix("compressor", 2 * made * self.head_dim, hidden))
        if self.indexer is not None:
            found += [
                Matrix("index_query", self.indexer.heads * self.indexer.head_dim, self.query_rank),
                Matrix("compressor", 2 * made * self.indexer.head_dim, hidden),
                Matrix("index_weights", self.indexer.heads, hidden),
            ]
        return tuple(found)

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """The window's latent vectors, compressed ones, and the indexer's keys of these."""
        entry_bytes = size_bytes(self.head_dim, dtypes.kv)
        found = [Kept(entry_bytes, self.window_tokens)]
        if self.tokens_per_entry:
            found.append(Kept(entry_bytes, tokens_per_entry=self.tokens_per_entry))
        if self.indexer is not None:
            found.append(Kept(self.indexer.key_bytes, tokens_per_entry=self.tokens_per_entry))
        return tuple(found)

    def of_rank(self, ranks: int) -> CompressedLatent:
        """One rank's share of the heads and of the output's groups."""
        return replace(self, heads=self.heads // ranks, output_groups=max(1, self.output_groups // ranks))

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        if self.heads % ranks or self.output_groups % ranks:
            return f"does not divide {self.heads} heads in {self.output_groups} groups"
        return None


def _unsplittable_heads(heads: int, kv_heads: int, ranks: int) -> str | None:
    if heads % ranks:
        return f"does not divide {heads} heads"
    if kv_heads % ranks and ranks % kv_heads:
        return f"neither divides {kv_heads} KV heads nor is a multiple of them"
    return None
