"""Seconds of each kind of attention layer, of the batch as it is: what a profile has for it, by the layer's class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from l4sim.batch import Batch
from l4sim.cost.attention.grouped_query import grouped_query, varied_query
from l4sim.cost.attention.latent import latent
from l4sim.cost.attention.part import AttentionPart, AttentionSetting, Builder
from l4sim.cost.attention.recurrent import gated_delta_net, kimi_delta, mamba
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery, Latent, VariedQuery
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.layers import Attention
from l4sim.specs.matrix import Absent
from l4sim.specs.recurrent import GatedDeltaNet, KimiDelta, Mamba


def attention_part(setting: AttentionSetting, attention: Attention, dtypes: Dtypes) -> AttentionPart:
    """The attention of one rank's share of a layer.

    Raises:
        InputError: a kind of layer, or a format of KV, that the profile has no seconds of.
    """
    build = KINDS.get(type(attention))
    if build is None:
        raise InputError(f"profile {setting.profile.name} has no seconds of {attention.kind}")
    return build(setting, attention, dtypes)


@dataclass(frozen=True, slots=True)
class NoAttention:
    """An ``AttentionModel`` of layers without any."""

    def attention_s(self, batch: Batch) -> float:
        """None."""
        return 0.0


def _absent(setting: AttentionSetting, attention: Absent, dtypes: Dtypes) -> AttentionPart:
    return AttentionPart(NoAttention())


KINDS: Mapping[type, Builder] = {
    GroupedQuery: grouped_query,
    VariedQuery: varied_query,
    Latent: latent,
    GatedDeltaNet: gated_delta_net,
    KimiDelta: kimi_delta,
    Mamba: mamba,
    Absent: _absent,
}
"""By the class of a layer's attention."""
