"""Seconds of each kind of attention layer, of the batch as it is: what a profile has for it, by the layer's class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from l4sim.batch import Batch
from l4sim.cost.attention import build_attention, tile_attention
from l4sim.cost.attention.anchored import AnchoredAttention, Ratios, ratios, uniform_decodes, uniform_prompts
from l4sim.cost.model import AttentionModel
from l4sim.cost.profile import Profile
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.layers import Attention
from l4sim.specs.matrix import Absent

DECODE, PREFILL = "decode_attention", "prefill_attention"
"""Tables of attention: kinds ``dtype, kv_dtype``, sizes ``heads, kv_heads, head_dim, window``, over a batch of equal
requests and their length."""


_MOST_PROMPT_TOKENS = 1 << 15
"""Prompts of more tokens together are not looked up: no step has as many, and kernels' models of them take long."""


class AttentionPart(NamedTuple):
    """The attention of one layer on one rank."""

    model: AttentionModel
    covers: frozenset[str] = frozenset()
    """Parts (`l4sim.specs.matrix.Matrix.part`) whose products are in its seconds, as in tables of whole modules."""
    measured: bool = True
    """Whether what it rests on was measured on this GPU for layers of these sizes."""


@dataclass(frozen=True, slots=True)
class AttentionSetting:
    """What a kind's seconds may depend on besides the layer."""

    profile: Profile
    hidden: int
    ranks: int
    """That share the layer's heads; the layer given beside is one rank's share already."""
    kernel: str
    """Of the profile's."""
    attention_model: str = "tile"
    """How the batch is seen: ``tile``, ``mean``, ``sum`` or ``skew``."""


Builder = Callable[[AttentionSetting, Any, Dtypes], AttentionPart]


def attention_part(setting: AttentionSetting, attention: Attention, dtypes: Dtypes) -> AttentionPart:
    """The attention of one rank's share of a layer.

    Raises:
        InputError: a kind of layer, or a format of KV, that the profile has no seconds of.
    """
    build = KINDS.get(type(attention))
    if build is None:
        raise InputError(f"profile {setting.profile.name} has no seconds of {attention.kind}")
    return build(setting, attention, dtypes)


def _grouped_query(setting: AttentionSetting, attention: GroupedQuery, dtypes: Dtypes) -> AttentionPart:
    """Full attention: the kernel's own split, held to uniform batches where a table has some."""
    profile, kernel = setting.profile, setting.profile.kernels[setting.kernel]
    sizes = {"heads": attention.heads, "kv_heads": attention.kv_heads, "head_dim": attention.head_dim}
    sms, anchored, measured = profile.gpu.sms, None, bool(kernel.errors)
    if DECODE in profile.tables and setting.kernel == profile.default_kernel:
        found = [_anchor(setting, name, {**sizes, "window": 0}, dtypes.kv) for name in (DECODE, PREFILL)]
        measured = all(exact for _, exact in found)
        anchored = partial(AnchoredAttention, decode=found[0][0], prefill=found[1][0])
    model = build_attention(
        setting.kernel, kernel.coefficients, **sizes, sms=sms, model=setting.attention_model, anchor=anchored
    )
    return AttentionPart(model, measured=measured)


def _anchor(setting: AttentionSetting, name: str, sizes: Mapping[str, int], kv_dtype: str) -> tuple[Ratios, bool]:
    """What the nearest row of a table takes more or less than the kernel's own split of it, and whether it is exact."""
    profile = setting.profile
    table = profile.tables[name]
    row, exact = nearest_row(table, kv_dtype, sizes)
    heads, kv_heads, head_dim = (int(table.sizes[size][row]) for size in ("heads", "kv_heads", "head_dim"))
    coefficients = profile.kernels[setting.kernel].coefficients
    tile = tile_attention(setting.kernel, coefficients, heads, kv_heads, head_dim, sms=profile.gpu.sms)
    return row_ratios(tile, table, row), exact


def nearest_row(table: OperatorTable, kv_dtype: str, sizes: Mapping[str, int]) -> tuple[int, bool]:
    """The row of a table for KV of a format that is nearest to these sizes, and whether it has them all.

    Nearest by octaves between sizes; windows must be the same.

    Raises:
        InputError: the table has nothing in that format, or with that window.
    """
    stored = "fp8" if kv_dtype == "fp8" else "bfloat16"
    possible = (table.kinds["kv_dtype"] == stored) & (table.sizes["window"] == sizes["window"])
    if not possible.any():
        raise InputError(f"{table.name} of {table.engine} has no seconds of KV in {kv_dtype}")
    octaves = np.where(possible, 0.0, np.inf)
    for name, size in sizes.items():
        if name != "window":
            octaves += np.abs(np.log2(table.sizes[name]) - np.log2(size))
    # Queries in the cache's own format come first: engines quantise them too where a kernel takes them.
    row = int(np.lexsort((table.kinds["dtype"] != stored, octaves))[0])
    return row, bool(octaves[row] == 0)


def row_ratios(tile: AttentionModel, table: OperatorTable, row: int) -> Ratios:
    """What the uniform batches of a row were measured to take more or less than a model of them says."""
    return _row_ratios(_Hashed(tile), table, row)


class _Hashed(NamedTuple):
    """A model, to be found again by its own figures: the bundled ones are frozen."""

    tile: AttentionModel


@lru_cache(maxsize=512)
def _row_ratios(model: _Hashed, table: OperatorTable, row: int) -> Ratios:
    tile, measured_s = model.tile, table.seconds[row]
    batch, length = table.axes["batch"], table.axes["length"]
    uniform = uniform_decodes
    if table.name == PREFILL:
        uniform = uniform_prompts
        measured_s = np.where(np.outer(batch, length) <= _MOST_PROMPT_TOKENS, measured_s, np.nan)
    modelled_s = np.full(measured_s.shape, np.nan)
    for i, j in zip(*np.nonzero(np.isfinite(measured_s)), strict=True):
        modelled_s[i, j] = tile.attention_s(uniform(int(batch[i]), int(length[j])))
    return ratios(batch, length, measured_s, modelled_s)


@dataclass(frozen=True, slots=True)
class NoAttention:
    """An ``AttentionModel`` of layers without any."""

    def attention_s(self, batch: Batch) -> float:
        """None."""
        return 0.0


def _absent(setting: AttentionSetting, attention: Absent, dtypes: Dtypes) -> AttentionPart:
    return AttentionPart(NoAttention())


KINDS: Mapping[type, Builder] = {GroupedQuery: _grouped_query, Absent: _absent}
"""By the class of a layer's attention."""
