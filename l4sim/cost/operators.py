"""One model's operators as they were measured, in place of models of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from l4sim.cost.curve import OverSequences, OverTokens
from l4sim.json_files import Count
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.layers import LayerGroup
from l4sim.specs.mlp import DenseMLP
from l4sim.specs.model import Model


@dataclass(frozen=True, slots=True)
class OperatorSizes:
    """What tells one model's operators from another's, over all ranks: its layers' sizes, embedding's and head's.

    Of layers with grouped-query attention and dense MLPs; flat, as files hold it.
    """

    hidden: Count
    intermediate: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    vocab: Count

    @classmethod
    def of(cls, model: Model, layer: LayerGroup) -> Self:
        """Those of a model, with the layers of one of its groups."""
        dense = layer.dense()
        attention, mlp = dense.attention, dense.mlp
        shape = attention.heads, attention.kv_heads, attention.head_dim
        return cls(model.hidden, mlp.intermediate, *shape, model.vocab)

    @property
    def one_layer(self) -> LayerGroup:
        """One such layer."""
        attention = GroupedQuery(self.heads, self.kv_heads, self.head_dim)
        return LayerGroup(1, attention, DenseMLP(self.intermediate))


SIZES = tuple(field.name for field in fields(OperatorSizes))
"""What files call them."""


@dataclass(frozen=True, slots=True)
class MeasuredOperators(OperatorSizes):
    """Everything but attention and communication of one kind of layer, and of its model's ends, on one rank."""

    tensor_parallel: Count
    layer: OverTokens
    """Seconds of one layer over tokens."""
    once: OverTokens
    """Seconds of embedding and final norm over tokens."""
    sampled: OverSequences
    """Seconds of lm_head and sampler over sampled sequences."""

    @property
    def sizes(self) -> OperatorSizes:
        """What model they are of."""
        return OperatorSizes(**{name: getattr(self, name) for name in SIZES})

    def fits(self, model: Model, layer: LayerGroup, tensor_parallel: int) -> bool:
        """Whether these are that model's, with layers as those of one of its groups."""
        return self.tensor_parallel == tensor_parallel and self.sizes == OperatorSizes.of(model, layer)
