"""Families of dense decoders: grouped-query attention, full or in windows, and gated MLPs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from l4sim.errors import InputError
from l4sim.json_files import Count, Positive
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.families.family import (
    FULL,
    SLIDING,
    Decoder,
    Family,
    Headed,
    Layer,
    LayerCount,
    Shape,
    attentions_of,
    grouped_query,
    needed,
    predictors_like,
    typed_layers,
    varied,
    windowed,
)
from l4sim.specs.layers import Attention
from l4sim.specs.matrix import Absent
from l4sim.specs.mlp import DenseMLP


@dataclass(frozen=True, kw_only=True)
class Dense(Headed):
    """Fields of dense decoders."""

    intermediate_size: Count


def dense_shape(config: Dense, where: str) -> Shape:
    """Layers with one MLP, and the window where the file gives one."""
    mlp = DenseMLP(config.intermediate_size)
    layers = tuple(Layer(attention, mlp) for attention in attentions_of(config, where))
    return Shape(layers, predictors_like(layers, config.num_nextn_predict_layers))


def _llama(config: Dense, where: str) -> Shape:
    """Llama's own code has a window only for layers whose type is ``sliding_attention``."""
    if config.sliding_window and config.layer_types is None:
        raise InputError(f"{where}: sliding_window is {config.sliding_window}, and layer_types is missing")
    return dense_shape(config, where)


@dataclass(frozen=True, kw_only=True)
class _Gemma(Dense):
    """Gemma 2's and 3's: all layers slide but every so many."""

    sliding_window_pattern: Count | None = None
    _sliding_window_pattern: Count | None = None
    """The same in files of transformers 5."""


def _alternating(every: int) -> Callable[[_Gemma, str], Shape]:
    """Layers of which every so many, by the file or else as given, is full."""

    def shape(config: _Gemma, where: str) -> Shape:
        if config.layer_types is not None or config.sliding_window is None:
            return dense_shape(config, where)
        full, mlp = grouped_query(config, where), DenseMLP(config.intermediate_size)
        pattern = config.sliding_window_pattern or config._sliding_window_pattern or every
        sliding = windowed(full, config.sliding_window, config)
        return Shape(
            tuple(Layer(sliding if index % pattern else full, mlp) for index in range(1, config.num_hidden_layers + 1))
        )

    return shape


def _gated(config: Dense, where: str) -> Shape:
    """Muse Glimmer's: attention with an output gate."""
    mlp = DenseMLP(config.intermediate_size)
    attentions = attentions_of(config, where)
    return Shape(tuple(Layer(varied(attention, gate_dim=attention.head_dim), mlp) for attention in attentions))


@dataclass(frozen=True, kw_only=True)
class _BlockAttention:
    """One block's attention as a neural architecture search has left it."""

    n_heads_in_group: Count | None = None
    no_op: bool = False
    replace_with_linear: bool | None = False
    sparsify: Any = None
    window_length: Count | None = None


@dataclass(frozen=True, kw_only=True)
class _BlockMLP:
    ffn_mult: Positive | None = None
    intermediate_size: Count | None = None
    no_op: bool = False
    replace_with_linear: bool | None = False
    sparsify: Any = None


@dataclass(frozen=True, kw_only=True)
class _Block:
    attention: _BlockAttention
    ffn: _BlockMLP


@dataclass(frozen=True, kw_only=True)
class _Searched(Decoder):
    """Fields of models made by neural architecture search (DeciLM, Llama-Nemotron)."""

    num_attention_heads: Count
    num_hidden_layers: LayerCount
    head_dim: Count | None = None
    block_configs: tuple[_Block, ...]


def _searched(config: _Searched, where: str) -> Shape:
    layers = []
    for index, block in enumerate(config.block_configs):
        at = f"{where}: block_configs[{index}]"
        attention, ffn = block.attention, block.ffn
        if attention.replace_with_linear or ffn.replace_with_linear or attention.sparsify or ffn.sparsify:
            raise InputError(f"{at}: a layer is replaced or sparsified, accepted are attention and MLPs or none")
        if attention.window_length is not None:
            raise InputError(f"{at}: window_length is {attention.window_length}, accepted is full attention (null)")
        layers.append(Layer(_searched_attention(config, attention, at), _searched_mlp(config, ffn, at)))
    if len(layers) != config.num_hidden_layers:
        raise InputError(
            f"{where}: block_configs has {len(layers)} blocks, num_hidden_layers is {config.num_hidden_layers}"
        )
    return Shape(tuple(layers))


def _searched_attention(config: _Searched, attention: _BlockAttention, at: str) -> Attention:
    if attention.no_op:
        return Absent()
    heads, group = config.num_attention_heads, attention.n_heads_in_group
    if group is None or heads % group:
        raise InputError(f"{at}: n_heads_in_group is {group}, accepted is what divides {heads} heads")
    return GroupedQuery(heads, heads // group, config.head_dim or config.hidden_size // heads)


def _searched_mlp(config: _Searched, ffn: _BlockMLP, at: str) -> DenseMLP | Absent:
    if ffn.no_op:
        return Absent()
    if ffn.intermediate_size is not None:
        return DenseMLP(ffn.intermediate_size)
    if ffn.ffn_mult is None:
        raise InputError(f"{at}: ffn_mult and intermediate_size are missing")
    # DeciLM's rule (vLLM, nemotron_nas.py): two thirds of the multiple, rounded up to 256.
    width = int(2 * ffn.ffn_mult * config.hidden_size / 3)
    return DenseMLP(-(-width // 256) * 256)


@dataclass(frozen=True, kw_only=True)
class Gemma4(Dense):
    """Fields of Gemma 4: full layers' own heads, whose keys may be their values; experts beside the MLP."""

    global_head_dim: Count | None = None
    num_global_key_value_heads: Count | None = None
    attention_k_eq_v: bool = False
    enable_moe_block: bool = False
    num_experts: Count | None = None
    num_experts_per_tok: Count | None = None
    moe_intermediate_size: Count | None = None


def gemma4_attentions(config: Gemma4, where: str) -> list[Attention]:
    """The attention of each layer."""
    own = grouped_query(config, where)
    head_dim = config.global_head_dim or own.head_dim
    kv_heads = config.num_global_key_value_heads if config.attention_k_eq_v else None
    full: Attention = GroupedQuery(own.heads, kv_heads or own.kv_heads, head_dim)
    if config.attention_k_eq_v:
        full = varied(GroupedQuery(own.heads, kv_heads or own.kv_heads, head_dim), one_projection=True)
    by_type: dict[str, Attention] = {FULL: full}
    if config.sliding_window is not None:
        by_type[SLIDING] = windowed(own, config.sliding_window, config)
    kinds = needed(config.layer_types, "layer_types", where)
    return typed_layers(kinds, by_type, config.num_hidden_layers, where)


_GEMMA3 = {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_GEMMA2 = {"head_dim": 256, "sliding_window": 4096, "max_position_embeddings": 8192, "tie_word_embeddings": True}

FAMILIES = (
    Family(("llama",), Dense, _llama),
    Family(
        (
            "mistral",
            "ministral3",
            "qwen2",
            "qwen3",
            "qwen2_vl",
            "qwen2_vl_text",
            "qwen2_5_vl",
            "qwen2_5_vl_text",
            "qwen3_vl_text",
            "phi3",
            "mimo",
            "seed_oss",
        ),
        Dense,
        dense_shape,
    ),
    Family(("gemma2",), _Gemma, _alternating(2), _GEMMA2),
    Family(("gemma3_text",), _Gemma, _alternating(6), _GEMMA3),
    Family(("muse_glimmer_text",), Dense, _gated),
    Family(("nemotron-nas",), _Searched, _searched),
)
