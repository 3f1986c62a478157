"""A model of two kinds of layers, as no dense ``config.json`` tells one, and models of either kind alone."""

from dataclasses import replace

from l4sim.specs.attention import GroupedQuery
from l4sim.specs.layers import LayerGroup
from l4sim.specs.mlp import DenseMLP
from l4sim.specs.model import Model

WIDE = LayerGroup(4, GroupedQuery(heads=32, kv_heads=8, head_dim=128), DenseMLP(14_336))
NARROW = LayerGroup(2, GroupedQuery(heads=16, kv_heads=2, head_dim=128), DenseMLP(8_192))
MIXED = Model("mixed", hidden=4096, vocab=32_000, max_model_len=32_768, groups=(WIDE, NARROW))


def of_layers(group: LayerGroup, count: int) -> Model:
    """The same model with ``count`` layers of one kind."""
    return replace(MIXED, name="uniform", groups=(replace(group, count=count),))
