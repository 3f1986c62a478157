"""Seconds of linear attention: states of a fixed size, so that lengths of contexts do not matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l4sim.batch import Batch
from l4sim.cost.attention.part import AttentionPart, AttentionSetting
from l4sim.cost.tables.surface import Surface, surface_of
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.recurrent import GatedDeltaNet, KimiDelta, Mamba

DECODE, PREFILL = "delta_net_decode", "delta_net_prefill"
"""Tables of gated delta nets: kind ``kernel`` (the convolution and the recurrence), sizes ``k_heads, k_dim, v_heads,
v_dim, conv_width``; by decoding requests, and by prompts and their length."""

_COVERED = frozenset({"conv"})


@dataclass(frozen=True, slots=True)
class RecurrentAttention:
    """An ``AttentionModel`` of states: by how many decode, and by prompts' tokens in this iteration."""

    decodes_s: tuple[float, ...]
    """By decoding requests from 0."""
    prompts: Surface
    scale: float = 1.0

    def attention_s(self, batch: Batch) -> float:
        """Seconds of one layer; decodes and prompts are launches of their own."""
        count = len(batch.decode_context_tokens)
        seconds = self.decodes_s[min(count, len(self.decodes_s) - 1)] if count else 0.0
        if batch.prefills:
            tokens = sum([chunk.chunk_tokens for chunk in batch.prefills])
            seconds += self.prompts.at(len(batch.prefills), tokens / len(batch.prefills))
        return self.scale * seconds


_MOST_DECODES = 4096
"""As many as are looked up: more than engines take."""


def gated_delta_net(setting: AttentionSetting, attention: GatedDeltaNet, dtypes: Dtypes) -> AttentionPart:
    """Gated delta nets by their tables; sizes that have no row as the nearest, in proportion to the state's bytes.

    Raises:
        InputError: the profile has no such table.
    """
    return _part(setting, attention.key_heads, attention.value_heads, attention.key_dim * attention.value_dim, True)


def kimi_delta(setting: AttentionSetting, attention: KimiDelta, dtypes: Dtypes) -> AttentionPart:
    """Kimi's delta rule as a gated delta net of as many heads: estimated.

    Raises:
        InputError: as ``gated_delta_net``.
    """
    return _part(setting, attention.heads, attention.heads, attention.head_dim**2, False)


def mamba(setting: AttentionSetting, attention: Mamba, dtypes: Dtypes) -> AttentionPart:
    """A Mamba-2 mixer as a gated delta net of as many heads, in proportion to the state's elements: estimated.

    Raises:
        InputError: as ``gated_delta_net``.
    """
    elements = attention.head_dim * attention.state_dim
    return _part(setting, attention.groups, attention.heads, elements, False)


def _part(setting: AttentionSetting, key_heads: int, value_heads: int, elements: int, same_rule: bool) -> AttentionPart:
    tables = setting.profile.tables
    if DECODE not in tables or PREFILL not in tables:
        raise InputError(f"profile {setting.profile.name} has no seconds of linear attention")
    decode, exact, scale = _rows(tables[DECODE], key_heads, value_heads, elements)
    prefill, _, _ = _rows(tables[PREFILL], key_heads, value_heads, elements)
    requests = np.arange(1, _MOST_DECODES + 1)
    decodes_s = np.sum([tables[DECODE].along(row, requests) for row in decode], axis=0)
    model = RecurrentAttention((0.0, *map(float, decodes_s)), surface_of(tables[PREFILL], prefill), scale)
    return AttentionPart(model, _COVERED, measured=same_rule and exact)


def _rows(table: OperatorTable, key_heads: int, value_heads: int, elements: int) -> tuple[list[int], bool, float]:
    """The rows of all kernels of the nearest sizes, whether they are exact, and how many times as large a state is."""
    sizes = table.sizes
    heads = np.abs(np.log2(sizes["v_heads"]) - np.log2(value_heads))
    octaves = heads + np.abs(np.log2(sizes["k_heads"]) - np.log2(max(key_heads, 1)))
    nearest = int(np.argmin(octaves))
    kernels = np.unique(table.kinds["kernel"])
    rows = []
    for kernel in kernels:
        own = np.where(table.kinds["kernel"] == kernel, octaves, np.inf)
        rows.append(int(np.argmin(own)))
    state = int(sizes["v_heads"][nearest] * sizes["k_dim"][nearest] * sizes["v_dim"][nearest])
    scale = value_heads * elements / state
    return rows, bool(octaves[nearest] == 0 and scale == 1), float(scale)
