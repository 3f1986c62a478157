"""Families with multi-head latent attention: DeepSeek's, Kimi K2, GLM-5."""

from __future__ import annotations

from dataclasses import dataclass, field

from l4sim.errors import InputError
from l4sim.json_files import Count
from l4sim.specs.attention import CompressedLatent, Indexer, Latent
from l4sim.specs.families.experts import mlps_of, shared_width
from l4sim.specs.families.family import (
    FULL,
    INDEXED,
    SLIDING,
    Decoder,
    ExpertLayers,
    Family,
    Layer,
    LayerCount,
    Shape,
    predictors_like,
    typed_layers,
)
from l4sim.specs.mlp import Experts

# How DeepSeek-V4's attention is called, by how many tokens share a compressed entry.
_COMPRESSED = {0: SLIDING, 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}


@dataclass(frozen=True, kw_only=True)
class Mixing(Decoder, ExpertLayers):
    """Fields of models with experts, as DeepSeek's and their successors have them."""

    num_hidden_layers: LayerCount
    num_attention_heads: Count
    num_experts: Count | None = None
    num_experts_per_tok: Count | None = None
    moe_intermediate_size: Count | None = None
    num_nextn_predict_layers: int | None = None


def experts_of(config: Mixing, where: str, *, latent: int | None = None) -> Experts:
    """The experts of such a model.

    Raises:
        InputError: one of their fields is missing.
    """
    experts, used, width = config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size
    if experts is None or used is None or width is None:
        raise InputError(f"{where}: num_experts, num_experts_per_tok or moe_intermediate_size is missing")
    return Experts(experts, used, width, shared=shared_width(config), latent=latent)


@dataclass(frozen=True, kw_only=True)
class WithLatent(Mixing):
    """Fields of latent attention."""

    q_lora_rank: Count | None = None
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: int
    v_head_dim: Count
    index_topk: Count | None = None
    index_n_heads: Count | None = None
    index_head_dim: Count | None = None
    indexer_types: tuple[str, ...] | None = None
    layer_types: tuple[str, ...] | None = None
    index_kpool: Count | None = None
    index_kpool_compress: bool = True
    mla_use_output_gate: bool = False


def latent_of(config: WithLatent, where: str) -> Latent:
    """The latent attention of such a model, with the indexer if it has one.

    Raises:
        InputError: an indexer's field is missing.
    """
    indexer = None
    if config.index_topk is not None:
        if config.index_n_heads is None or config.index_head_dim is None:
            raise InputError(f"{where}: index_topk, and index_n_heads or index_head_dim is missing")
        pool = config.index_kpool if config.index_kpool_compress else None
        indexer = Indexer(config.index_n_heads, config.index_head_dim, pool or 1)
    return Latent(
        config.num_attention_heads,
        config.q_lora_rank,
        config.kv_lora_rank,
        config.qk_nope_head_dim,
        config.qk_rope_head_dim,
        config.v_head_dim,
        indexer,
        gated=config.mla_use_output_gate,
    )


def latents_of(config: WithLatent, where: str) -> list[Latent]:
    """The same of each layer: some may see what an earlier layer's indexer chose.

    Raises:
        InputError: fields that do not go together.
    """
    own, count = latent_of(config, where), config.num_hidden_layers
    if config.indexer_types is None or own.indexer is None:
        return [own] * count
    shared = Latent(
        own.heads, own.query_rank, own.kv_rank, own.nope_dim, own.rope_dim, own.value_dim, None, True, own.gated
    )
    return typed_layers(config.indexer_types, {"full": own, "shared": shared}, count, where, "indexer_types")


def _latent(config: WithLatent, where: str) -> Shape:
    attentions = latents_of(config, where)
    if config.layer_types is not None:
        named = {INDEXED: True} if config.index_topk else {FULL: True}
        typed_layers(config.layer_types, named, config.num_hidden_layers, where)
    mlps = mlps_of(config, experts_of(config, where), where)
    layers = tuple(map(Layer, attentions, mlps))
    return Shape(layers, predictors_like(layers, config.num_nextn_predict_layers))


@dataclass(frozen=True, kw_only=True)
class _WithCompression(Mixing):
    """DeepSeek-V4."""

    head_dim: Count
    q_lora_rank: Count
    o_lora_rank: Count
    o_groups: Count
    sliding_window: Count
    compress_ratios: tuple[int, ...] | None = None
    """By layer, those that predict further tokens at the end; 0: the window alone."""
    layer_types: tuple[str, ...] | None = None
    """The same in files of transformers 5, with ``compress_rates``."""
    compress_rates: dict[str, Count] = field(default_factory=dict)
    index_topk: Count
    index_n_heads: Count
    index_head_dim: Count


def _compressed(config: _WithCompression, where: str) -> Shape:
    kinds, count = config.layer_types, config.num_hidden_layers
    if config.compress_ratios is not None:
        kinds = tuple(_COMPRESSED.get(ratio, str(ratio)) for ratio in config.compress_ratios)
    if kinds is None:
        raise InputError(f"{where}: compress_ratios and layer_types are missing")
    if config.mlp_layer_types is not None:
        typed_layers(
            config.mlp_layer_types, dict.fromkeys(("moe", "hash_moe", "sparse")), count, where, "mlp_layer_types"
        )
    experts, named = experts_of(config, where), "layer_types" if config.compress_ratios is None else "compress_ratios"
    known = {
        kind: Layer(_compressed_latent(config, kind, config.compress_rates.get(kind, tokens)), experts)
        for tokens, kind in _COMPRESSED.items()
    }
    layers = tuple(typed_layers(kinds, known, max(count, len(kinds)), where, named))
    return Shape(layers[:count], layers[count:])


def _compressed_latent(config: _WithCompression, kind: str, tokens_per_entry: int) -> CompressedLatent:
    # Of entries for few tokens, which overlap, an indexer chooses; those for many are all seen (transformers' module).
    chosen = kind == _COMPRESSED[4]
    return CompressedLatent(
        config.num_attention_heads,
        config.head_dim,
        config.q_lora_rank,
        config.o_groups,
        config.o_lora_rank,
        config.sliding_window,
        tokens_per_entry,
        overlapping=chosen,
        indexer=Indexer(config.index_n_heads, config.index_head_dim) if chosen else None,
    )


FAMILIES = (
    Family(
        ("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa", "glm4_moe_lite"), WithLatent, _latent
    ),
    Family(("deepseek_v4", "deepseek_ref"), _WithCompression, _compressed),
)
