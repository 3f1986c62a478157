"""Seconds of grouped-query attention: full, in windows or chunks, gated, with keys wider than values."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from l4sim.cost.attention import build_attention, tile_attention
from l4sim.cost.attention.anchored import AnchoredAttention, Ratios, ratios, uniform_decodes, uniform_prompts
from l4sim.cost.attention.part import AttentionPart, AttentionSetting
from l4sim.cost.attention.shape import Shape
from l4sim.cost.attention.windowed import WindowedAttention
from l4sim.cost.model import AttentionModel
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.dtypes import Dtypes

DECODE, PREFILL = "decode_attention", "prefill_attention"
"""Tables of attention: kinds ``dtype, kv_dtype``, sizes ``heads, kv_heads, head_dim, window``, over a batch of equal
requests and their length."""

_MOST_PROMPT_TOKENS = 1 << 15
"""Prompts of more tokens together are not looked up: no step has as many, and kernels' models of them take long."""


def grouped_query(setting: AttentionSetting, attention: GroupedQuery, dtypes: Dtypes) -> AttentionPart:
    """Full attention: the kernel's own split, held to uniform batches where a table has some."""
    return _part(setting, _Sizes(attention.heads, attention.kv_heads, attention.head_dim), dtypes)


def varied_query(setting: AttentionSetting, attention: VariedQuery, dtypes: Dtypes) -> AttentionPart:
    """The same in windows and chunks, gated, or of keys that are wider than values, which count as half-way between.

    Raises:
        InputError: an index chooses the blocks of keys, whose seconds are not known.
    """
    if attention.index_heads:
        raise InputError(f"profile {setting.profile.name} has no seconds of {attention.kind}")
    width = (attention.head_dim + attention.value_dim) // 2
    sizes = _Sizes(attention.heads, attention.kv_heads, width, attention.window_tokens or 0, attention.chunked)
    return _part(setting, sizes, dtypes)


class _Sizes(NamedTuple):
    """Of one rank's attention; a window of 0 is none."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int = 0
    chunked: bool = False


def _part(setting: AttentionSetting, sizes: _Sizes, dtypes: Dtypes) -> AttentionPart:
    profile, kernel = setting.profile, setting.profile.kernels[setting.kernel]
    measured = bool(kernel.errors) and not sizes.window
    anchor = _window(sizes)
    if DECODE in profile.tables and setting.kernel == profile.default_kernel:
        anchor, measured = _held(setting, sizes, dtypes.kv)
    elif dtypes.kv == "fp8":
        raise InputError(f"profile {profile.name}: kernel {setting.kernel} has no seconds of KV in fp8")
    model = build_attention(
        setting.kernel,
        kernel.coefficients,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        sms=profile.gpu.sms,
        graph_requests=setting.graph_requests,
        graph_tokens=setting.graph_tokens,
        model=setting.attention_model,
        anchor=anchor,
    )
    return AttentionPart(model, measured=measured)


def _window(sizes: _Sizes) -> Callable[[AttentionModel], AttentionModel]:
    """Makes of a kernel's attention that in a window."""
    if not sizes.window:
        return lambda tile: tile
    return partial(WindowedAttention, window_tokens=sizes.window, chunked=sizes.chunked)


def _held(
    setting: AttentionSetting, sizes: _Sizes, kv_dtype: str
) -> tuple[Callable[[AttentionModel], AttentionModel], bool]:
    """Makes of the kernel's own split one that is held to the nearest rows of tables; and whether these are exact."""
    profile = setting.profile
    coefficients, sms = profile.kernels[setting.kernel].coefficients, profile.gpu.sms
    found, exact, windows = [], True, set()
    for name in (DECODE, PREFILL):
        table = profile.tables[name]
        row, same = nearest_row(table, kv_dtype, sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.window)
        numbers = (int(table.sizes[size][row]) for size in ("heads", "kv_heads", "head_dim", "window"))
        own = _Sizes._make((*numbers, False))
        tile = tile_attention(setting.kernel, coefficients, Shape(own.heads, own.kv_heads, own.head_dim, sms))
        found.append(row_ratios(_window(own)(tile), table, row))
        exact = exact and same
        windows.add(bool(own.window))
    anchored = partial(AnchoredAttention, decode=found[0], prefill=found[1])
    window = _window(sizes)
    if sizes.window and windows == {True}:
        return lambda tile: anchored(window(tile)), exact and not sizes.chunked
    # Measured without a window: what a window lets be seen takes as long as a batch of such lengths.
    return lambda tile: window(anchored(tile)), exact


def nearest_row(
    table: OperatorTable, kv_dtype: str, heads: int, kv_heads: int, head_dim: int, window: int
) -> tuple[int, bool]:
    """The row of a table for KV of a format that is nearest to these sizes, and whether it has them all.

    Nearest by octaves between sizes. A window's is the nearest window, and without any a row of full attention.

    Raises:
        InputError: the table has nothing in that format.
    """
    stored = "fp8" if kv_dtype == "fp8" else "bfloat16"
    windows = table.sizes["window"]
    possible = table.kinds["kv_dtype"] == stored
    windowed = possible & (windows > 0)
    possible = windowed if window and windowed.any() else possible & (windows == 0)
    if not possible.any():
        raise InputError(f"{table.name} of {table.engine} has no seconds of KV in {kv_dtype}")
    octaves = np.where(possible, 0.0, np.inf)
    for name, size in {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}.items():
        octaves += np.abs(np.log2(table.sizes[name]) - np.log2(size))
    if window:
        octaves += np.abs(np.log2(np.maximum(windows, 1)) - np.log2(window))
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
