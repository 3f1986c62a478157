"""Families with grouped-query attention and mixtures of experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from l4sim.errors import InputError
from l4sim.json_files import Count, checked
from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.families.dense import Gemma4, gemma4_attentions
from l4sim.specs.families.family import (
    CHUNKED,
    FULL,
    ExpertLayers,
    Family,
    Headed,
    Layer,
    Shape,
    attentions_of,
    grouped_query,
    needed,
    predictors_like,
    typed_layers,
    varied,
)
from l4sim.specs.layers import MLP, Attention
from l4sim.specs.mlp import DenseMLP, Experts
from l4sim.specs.quantization import MODULES, modules_named

_EXPERTS, _DENSE = "sparse", "dense"
_BLOCKS = "minimax_m3_sparse"


@dataclass(frozen=True, kw_only=True)
class WithExperts(Headed):
    """Fields of models with experts."""

    num_experts: Count
    num_experts_per_tok: Count
    intermediate_size: Count


def all_experts(layers: Sequence[Attention], experts: Experts, predictors: int | None = None) -> Shape:
    """Layers that all have experts."""
    found = tuple(Layer(attention, experts) for attention in layers)
    return Shape(found, predictors_like(found, predictors))


def _mixtral(config: WithExperts, where: str) -> Shape:
    """Experts as wide as ``intermediate_size``: Mixtral, gpt-oss, MiniMax-M2."""
    experts = Experts(config.num_experts, config.num_experts_per_tok, config.intermediate_size)
    return all_experts(attentions_of(config, where), experts, config.num_nextn_predict_layers)


def _gpt_oss(config: WithExperts, where: str) -> Shape:
    """gpt-oss: every other layer slides where ``layer_types`` is missing."""
    window = needed(config.sliding_window, "sliding_window", where)
    if config.layer_types is not None:
        return _mixtral(config, where)
    full = grouped_query(config, where)
    sliding = varied(full, window_tokens=window)
    layers = [full if index % 2 else sliding for index in range(config.num_hidden_layers)]
    return all_experts(layers, Experts(config.num_experts, config.num_experts_per_tok, config.intermediate_size))


@dataclass(frozen=True, kw_only=True)
class _MiniMax(WithExperts):
    """MiniMax-M2."""

    use_qk_norm: bool | None = None
    qk_norm_type: str | None = None
    """``per_layer``: over all heads together."""
    shared_intermediate_size: int | None = None
    use_mtp: bool | None = None
    num_mtp_modules: int | None = None
    mtp_transformer_layers: int | None = None


def _minimax(config: _MiniMax, where: str) -> Shape:
    experts = Experts(
        config.num_experts,
        config.num_experts_per_tok,
        config.intermediate_size,
        shared=config.shared_intermediate_size or 0,
    )
    predictors = (config.num_mtp_modules or 0) * (config.mtp_transformer_layers or 1) if config.use_mtp else 0
    attentions = [
        replace(attention, normed_over_heads=True)
        if isinstance(attention, GroupedQuery) and config.use_qk_norm and config.qk_norm_type == "per_layer"
        else attention
        for attention in attentions_of(config, where)
    ]
    return all_experts(attentions, experts, predictors)


@dataclass(frozen=True, kw_only=True)
class _MiniMaxM3(Headed):
    """MiniMax-M3: an index over blocks of keys, dense first layers; told layer by layer in the older or newer way."""

    num_experts: Count
    num_experts_per_tok: Count
    intermediate_size: Count
    dense_intermediate_size: Count
    n_shared_experts: int = 1
    shared_intermediate_size: int | None = None
    moe_layer_freq: tuple[int, ...] | None = None
    mlp_layer_types: tuple[str, ...] | None = None
    sparse_attention_config: dict[str, Any] | None = None
    index_n_heads: Count | None = None
    index_head_dim: Count | None = None
    num_mtp_modules: int | None = None


@dataclass(frozen=True, kw_only=True)
class _SparseBlocks:
    """Which layers have an index, and its heads."""

    sparse_attention_freq: tuple[int, ...]
    sparse_index_dim: Count
    sparse_num_index_heads: Count
    use_sparse_attention: bool = True


def _minimax_m3(config: _MiniMaxM3, where: str) -> Shape:
    count = config.num_hidden_layers
    experts = Experts(
        config.num_experts,
        config.num_experts_per_tok,
        config.intermediate_size,
        shared=(config.shared_intermediate_size or 0) * config.n_shared_experts,
    )
    by_type: dict[str, MLP] = {_EXPERTS: experts, _DENSE: DenseMLP(config.dense_intermediate_size)}
    kinds = config.mlp_layer_types
    if config.moe_layer_freq is not None:
        kinds = tuple(_EXPERTS if mixed else _DENSE for mixed in config.moe_layer_freq)
    if kinds is None:
        raise InputError(f"{where}: moe_layer_freq and mlp_layer_types are missing")
    mlps = typed_layers(kinds, by_type, count, where, "mlp_layer_types")
    layers = tuple(map(Layer, _block_sparse(config, where), mlps))
    return Shape(layers, predictors_like(layers, config.num_nextn_predict_layers or config.num_mtp_modules))


def _block_sparse(config: _MiniMaxM3, where: str) -> list[Attention]:
    full, heads, dim = grouped_query(config, where), config.index_n_heads, config.index_head_dim
    kinds = config.layer_types
    if config.sparse_attention_config is not None:
        named = f"{where}: sparse_attention_config"
        sparse = checked(config.sparse_attention_config, _SparseBlocks, named, others=True)
        heads, dim, freq = sparse.sparse_num_index_heads, sparse.sparse_index_dim, sparse.sparse_attention_freq
        kinds = tuple(_BLOCKS if index and sparse.use_sparse_attention else FULL for index in freq)
    if kinds is None:
        raise InputError(f"{where}: sparse_attention_config and layer_types are missing")
    by_type: dict[str, Attention] = {FULL: full}
    if heads is not None and dim is not None:
        by_type[_BLOCKS] = varied(full, index_heads=heads, index_dim=dim)
    return typed_layers(kinds, by_type, config.num_hidden_layers, where)


def _flags(values: Sequence[int], count: int, where: str) -> list[bool]:
    if len(values) < count:
        raise InputError(f"{where} names {len(values)} layers of {count}")
    return [bool(value) for value in values[:count]]


@dataclass(frozen=True, kw_only=True)
class Mixed(Headed, ExpertLayers):
    """Fields of models whose layers have experts or one MLP."""

    num_experts: Count
    num_experts_per_tok: Count
    moe_intermediate_size: Count


def mlps_of(config: Any, experts: Experts, where: str) -> list[MLP]:
    """The MLP of each layer, by whichever of `Mixed`'s fields tell which have experts.

    Raises:
        InputError: dense layers whose ``intermediate_size`` is missing, or fields that do not go together.
    """
    has = _has_experts(config, where)
    if all(has):
        return [experts] * len(has)
    if config.intermediate_size is None:
        raise InputError(f"{where}: intermediate_size is missing, and layers without experts have it")
    return [experts if mixed else DenseMLP(config.intermediate_size) for mixed in has]


def _has_experts(config: Any, where: str) -> list[bool]:
    count = config.num_hidden_layers
    if config.mlp_layer_types is not None:
        return typed_layers(config.mlp_layer_types, {_EXPERTS: True, _DENSE: False}, count, where, "mlp_layer_types")
    if isinstance(config.moe_layer_freq, tuple):
        return _flags(config.moe_layer_freq, count, f"{where}: moe_layer_freq")
    first = config.first_k_dense_replace or 0
    every = config.moe_layer_freq or 1
    step, dense = config.decoder_sparse_step or 1, config.mlp_only_layers or ()
    return [
        index >= first and index % every == 0 and (index + 1) % step == 0 and index not in dense
        for index in range(count)
    ]


def shared_width(config: Any) -> int:
    """The width of all shared experts together: told, or each as wide as the others."""
    told: int | None = config.shared_expert_intermediate_size
    return told if told is not None else (config.n_shared_experts or 0) * int(config.moe_intermediate_size)


def mixed_shape(config: Mixed, where: str) -> Shape:
    """Experts in some layers or all: Qwen's with a gate on the shared expert, GLM's without."""
    experts = Experts(
        config.num_experts,
        config.num_experts_per_tok,
        config.moe_intermediate_size,
        shared=shared_width(config),
        shared_gate=bool(config.shared_expert_intermediate_size),
    )
    layers = tuple(map(Layer, attentions_of(config, where), mlps_of(config, experts, where)))
    return Shape(layers, predictors_like(layers, config.num_nextn_predict_layers))


@dataclass(frozen=True, kw_only=True)
class _Llama4(Headed):
    """Llama 4: chunked attention but in every fourth layer, one shared expert in every layer with experts."""

    num_experts: Count
    num_experts_per_tok: Count
    intermediate_size: Count
    intermediate_size_mlp: Count
    interleave_moe_layer_step: Count = 1
    moe_layers: tuple[int, ...] | None = None
    attention_chunk_size: Count | None = None
    no_rope_layers: tuple[int, ...] | None = None
    no_rope_layer_interval: Count | None = None


def _llama4(config: _Llama4, where: str) -> Shape:
    full, count = grouped_query(config, where), config.num_hidden_layers
    chunk = config.attention_chunk_size
    chunked: Attention = full
    if chunk is not None and chunk < config.max_position_embeddings:
        chunked = varied(full, window_tokens=chunk, chunked=True)
    if config.layer_types is not None:
        attentions = typed_layers(config.layer_types, {FULL: full, CHUNKED: chunked}, count, where)
    else:
        # Layers with rotary embeddings are chunked; transformers' default leaves these out of every fourth.
        every = config.no_rope_layer_interval or 4
        rotary = config.no_rope_layers or [int((index + 1) % every != 0) for index in range(count)]
        attentions = [chunked if has else full for has in _flags(rotary, count, f"{where}: no_rope_layers")]
    experts = Experts(
        config.num_experts, config.num_experts_per_tok, config.intermediate_size, shared=config.intermediate_size
    )
    step = config.interleave_moe_layer_step
    mixed = range(step - 1, count, step) if config.moe_layers is None else config.moe_layers
    mlps = [experts if index in mixed else DenseMLP(config.intermediate_size_mlp) for index in range(count)]
    return Shape(tuple(map(Layer, attentions, mlps)))


@dataclass(frozen=True, kw_only=True)
class _OtherHeads:
    """The heads of Step's layers of the other type."""

    attention_type: str
    num_attention_heads: Count
    num_attention_groups: Count
    head_dim: Count


@dataclass(frozen=True, kw_only=True)
class _Step(Mixed):
    """Step 3.5 and 3.7: a gate for each head, other heads in sliding layers, shared experts of their own width."""

    share_expert_dim: int | None = None
    moe_layers_enum: str | tuple[int, ...] | None = None
    """Layers with experts; in a text with commas between them."""
    attention_other_setting: _OtherHeads | None = None


def _step(config: _Step, where: str) -> Shape:
    attentions = [varied(attention, gate_dim=1) for attention in attentions_of(config, where)]
    other = config.attention_other_setting
    if other is not None and config.layer_types is not None:
        attentions = [
            replace(attention, heads=other.num_attention_heads, kv_heads=other.num_attention_groups)
            if kind == other.attention_type
            else attention
            for kind, attention in zip(config.layer_types, attentions, strict=False)
        ]
    experts = Experts(
        config.num_experts,
        config.num_experts_per_tok,
        config.moe_intermediate_size,
        shared=shared_width(config) if config.share_expert_dim is None else config.share_expert_dim,
    )
    layers = tuple(map(Layer, attentions, _step_mlps(config, experts, where)))
    return Shape(layers, predictors_like(layers, config.num_nextn_predict_layers))


def _step_mlps(config: _Step, experts: Experts, where: str) -> list[MLP]:
    told = config.moe_layers_enum
    if told is None:
        return mlps_of(config, experts, where)
    if config.intermediate_size is None:
        raise InputError(f"{where}: intermediate_size is missing, and layers without experts have it")
    try:
        mixed = {int(index) for index in told.split(",")} if isinstance(told, str) else set(told)
    except ValueError:
        raise InputError(f"{where}: moe_layers_enum is {told!r}, accepted are numbers with commas between") from None
    return [
        experts if index in mixed else DenseMLP(config.intermediate_size) for index in range(config.num_hidden_layers)
    ]


@dataclass(frozen=True, kw_only=True)
class _MiMo(Mixed):
    """MiMo-V2: keys wider than values, sliding layers with heads of their own."""

    v_head_dim: Count
    hybrid_layer_pattern: tuple[int, ...]
    swa_num_attention_heads: Count
    swa_num_key_value_heads: Count
    swa_head_dim: Count
    swa_v_head_dim: Count
    attention_chunk_size: Count | None = None
    """As wide as the window; not read by vLLM or transformers."""


def _mimo(config: _MiMo, where: str) -> Shape:
    full = varied(grouped_query(config, where), value_dim=config.v_head_dim)
    sliding = VariedQuery(
        config.swa_num_attention_heads,
        config.swa_num_key_value_heads,
        config.swa_head_dim,
        config.swa_v_head_dim,
        window_tokens=needed(config.sliding_window, "sliding_window", where),
    )
    slides = _flags(config.hybrid_layer_pattern, config.num_hidden_layers, f"{where}: hybrid_layer_pattern")
    experts = Experts(
        config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size, shared=shared_width(config)
    )
    attentions = [sliding if slide else full for slide in slides]
    layers = tuple(map(Layer, attentions, mlps_of(config, experts, where)))
    return Shape(layers, predictors_like(layers, config.num_nextn_predict_layers))


def _gemma4(config: Gemma4, where: str) -> Shape:
    attentions = gemma4_attentions(config, where)
    if not config.enable_moe_block:
        return Shape(tuple(Layer(attention, DenseMLP(config.intermediate_size)) for attention in attentions))
    experts, used, width = config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size
    if experts is None or used is None or width is None:
        raise InputError(
            f"{where}: enable_moe_block, and num_experts, top_k_experts or moe_intermediate_size is missing"
        )
    # The MLP stands beside the experts in every layer, as a shared expert does.
    return all_experts(attentions, Experts(experts, used, width, shared=config.intermediate_size))


FAMILIES = (
    Family(("mixtral",), WithExperts, _mixtral),
    Family(("gpt_oss",), WithExperts, _gpt_oss),
    Family(("minimax_m2",), _MiniMax, _minimax),
    Family(("minimax_m3", "minimax_m3_vl_text"), _MiniMaxM3, _minimax_m3),
    Family(("qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text", "glm4_moe"), Mixed, mixed_shape),
    Family(("llama4_text",), _Llama4, _llama4),
    Family(("step3p7", "step3p5"), _Step, _step),
    Family(("mimo_v2_flash",), _MiMo, _mimo),
    Family(
        ("gemma4_text",),
        Gemma4,
        _gemma4,
        {"tie_word_embeddings": True},
        modules_named(
            shared_up=MODULES["up"],
            shared_down=MODULES["down"],
            expert_up=("experts.0.gate_proj", "experts.gate_up_proj"),
            expert_down=("experts.0.down_proj", "experts.down_proj"),
        ),
    ),
)
