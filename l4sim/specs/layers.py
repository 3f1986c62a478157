"""Layers of a decoder: groups of layers that are alike, each an attention and an MLP in their number formats.

A kind tells sizes (`l4sim.specs.attention`, `l4sim.specs.recurrent`, `l4sim.specs.mlp`): `Dtypes` makes them bytes, and
`l4sim.cost` seconds. One rank of a tensor-parallel instance has layers of the same kinds, with fewer heads and narrower
MLPs (``of_rank``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from l4sim.errors import InputError
from l4sim.specs.attention import CompressedLatent, GroupedQuery, Latent, VariedQuery
from l4sim.specs.dtypes import DTYPES, Dtypes, size_bytes
from l4sim.specs.matrix import Absent, Kept, Matrix, Product
from l4sim.specs.mlp import DenseMLP, Experts, UngatedMLP
from l4sim.specs.recurrent import GatedDeltaNet, KimiDelta, Mamba

# Unions: the type checker names every place that a further kind must be told to.
Attention = GroupedQuery | VariedQuery | Latent | CompressedLatent | Mamba | GatedDeltaNet | KimiDelta | Absent
MLP = DenseMLP | UngatedMLP | Experts | Absent


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers of a model that are all alike; their order among others does not matter to sums."""

    count: int
    attention: Attention
    mlp: MLP
    dtypes: Dtypes = field(default_factory=Dtypes)

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """The weights of one layer, in the order of computation."""
        return *self.attention.matrices(hidden), *self.mlp.matrices(hidden)

    def parameters(self, hidden: int) -> int:
        """Number of weights of all its layers (norms, biases and the like left out: under a thousandth)."""
        return self.count * sum(matrix.parameters for matrix in self.matrices(hidden))

    def active_parameters(self, hidden: int) -> int:
        """Number of these weights that one token is multiplied with."""
        return self.count * sum(matrix.active_parameters for matrix in self.matrices(hidden))

    def weight_bytes(self, hidden: int) -> int:
        """Bytes of these weights."""
        return sum(self.weight_bytes_by_dtype(hidden).values())

    def weight_bytes_by_dtype(self, hidden: int) -> dict[str, int]:
        """The same by number format."""
        found: dict[str, int] = {}
        for matrix in self.matrices(hidden):
            dtype = self.dtypes.of(matrix.part)
            found[dtype] = found.get(dtype, 0) + self.count * size_bytes(matrix.parameters, dtype)
        return found

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What one sequence keeps in one of the layers."""
        return self.attention.kept(self.dtypes)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token adds to the KV cache of all its layers, while their windows have room."""
        return self.count * sum(kept.bytes_per_token for kept in self.kept)

    def kv_bytes(self, tokens: int) -> int:
        """Bytes that a sequence of so many tokens keeps in all its layers, fixed states included."""
        return self.count * sum(kept.bytes(tokens) for kept in self.kept)

    def products(self, hidden: int) -> tuple[Product, ...]:
        """The matrix products of one layer, in the order of computation.

        Raises:
            InputError: as ``dense``.
        """
        dense = self.dense()
        return *dense.attention.products(hidden), *dense.mlp.products(hidden)

    def of_rank(self, ranks: int) -> LayerGroup:
        """One rank's share of the layers."""
        return replace(self, attention=self.attention.of_rank(ranks), mlp=self.mlp.of_rank(ranks))

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share the layers evenly; None if they can."""
        return self.attention.unsplittable(ranks) or self.mlp.unsplittable(ranks)

    @property
    def beyond_dense(self) -> str | None:
        """What makes them others than `DenseLayers`; None if nothing does."""
        if not isinstance(self.attention, GroupedQuery):
            return "layers without attention" if isinstance(self.attention, Absent) else self.attention.kind
        if not isinstance(self.mlp, DenseMLP):
            return "layers without MLP" if isinstance(self.mlp, Absent) else self.mlp.kind
        formats = (self.dtypes.weights, *(dtype for _, dtype in self.dtypes.parts))
        quantised = next((f"weights in {dtype}" for dtype in formats if dtype not in DTYPES), None)
        return quantised or (None if self.dtypes.kv in DTYPES else f"KV in {self.dtypes.kv}")

    def dense(self) -> DenseLayers:
        """The same, for what knows of dense layers alone.

        Raises:
            InputError: they are others.
        """
        attention, mlp = self.attention, self.mlp
        if self.beyond_dense or not (isinstance(attention, GroupedQuery) and isinstance(mlp, DenseMLP)):
            raise InputError(
                f"{self.beyond_dense}: accepted are layers of full grouped-query attention and dense MLPs in 16 bits"
            )
        return DenseLayers(self.count, attention, mlp, self.dtypes)


@dataclass(frozen=True, slots=True)
class DenseLayers(LayerGroup):
    """Layers of full grouped-query attention and gated dense MLPs, in 16 bits."""

    attention: GroupedQuery
    mlp: DenseMLP
