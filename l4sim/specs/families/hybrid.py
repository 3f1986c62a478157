"""Families that mix attention with layers of fixed state: Qwen3-Next and 3.5, Nemotron-H, Kimi's, GLM-5.3-Flash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l4sim.errors import InputError
from l4sim.json_files import Count, checked
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.families.experts import mlps_of, shared_width
from l4sim.specs.families.family import (
    FULL,
    INDEXED,
    LINEAR,
    Decoder,
    ExpertLayers,
    Family,
    Headed,
    Layer,
    LayerCount,
    Shape,
    grouped_query,
    typed_layers,
    varied,
)
from l4sim.specs.families.latent import WithLatent, experts_of, latent_of
from l4sim.specs.layers import MLP, Attention
from l4sim.specs.matrix import Absent
from l4sim.specs.mlp import DenseMLP, Experts, UngatedMLP
from l4sim.specs.quantization import modules_without
from l4sim.specs.recurrent import GatedDeltaNet, KimiDelta, Mamba


@dataclass(frozen=True, kw_only=True)
class _QwenHybrid(Headed, ExpertLayers):
    """Qwen3-Next and Qwen3.5: gated delta nets, and gated attention in every fourth layer."""

    linear_num_key_heads: Count
    linear_num_value_heads: Count
    linear_key_head_dim: Count
    linear_value_head_dim: Count
    linear_conv_kernel_dim: Count
    full_attention_interval: Count = 4
    attn_output_gate: bool = True
    mamba_ssm_dtype: str | None = None
    mtp_num_hidden_layers: int | None = None
    num_experts: Count | None = None
    num_experts_per_tok: Count | None = None
    moe_intermediate_size: Count | None = None


def _qwen_hybrid(config: _QwenHybrid, where: str) -> Shape:
    own, count = grouped_query(config, where), config.num_hidden_layers
    delta = GatedDeltaNet(
        config.linear_num_key_heads,
        config.linear_num_value_heads,
        config.linear_key_head_dim,
        config.linear_value_head_dim,
        config.linear_conv_kernel_dim,
        config.mamba_ssm_dtype or "bfloat16",
    )
    full: Attention = varied(own, gate_dim=own.head_dim) if config.attn_output_gate else own
    every = config.full_attention_interval
    kinds = config.layer_types or tuple(LINEAR if (index + 1) % every else FULL for index in range(count))
    attentions = typed_layers(kinds, {FULL: full, LINEAR: delta}, count, where)
    layers = tuple(map(Layer, attentions, _qwen_mlps(config, where)))
    predictor = Layer(full, layers[-1].mlp)
    return Shape(layers, (predictor,) * (config.mtp_num_hidden_layers or 0))


def _qwen_mlps(config: _QwenHybrid, where: str) -> list[MLP]:
    if config.num_experts is None:
        if config.intermediate_size is None:
            raise InputError(f"{where}: intermediate_size is missing, and so is num_experts")
        return [DenseMLP(config.intermediate_size)] * config.num_hidden_layers
    used, width = config.num_experts_per_tok, config.moe_intermediate_size
    if used is None or width is None:
        raise InputError(f"{where}: num_experts, and num_experts_per_tok or moe_intermediate_size is missing")
    shared = shared_width(config)
    return mlps_of(config, Experts(config.num_experts, used, width, shared=shared, shared_gate=shared > 0), where)


@dataclass(frozen=True, kw_only=True)
class _Nemotron(Decoder):
    """Nemotron-H: every layer is one mixer, of Mamba, attention, experts or an MLP."""

    num_hidden_layers: LayerCount | None = None
    hybrid_override_pattern: str | None = None
    layers_block_type: tuple[str, ...] | None = None
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    attention_head_dim: Count | None = None
    mamba_num_heads: Count
    mamba_head_dim: Count
    n_groups: Count
    ssm_state_size: Count
    conv_kernel: Count
    mamba_ssm_cache_dtype: str = "float32"
    intermediate_size: Count | None = None
    num_experts: Count | None = None
    num_experts_per_tok: Count | None = None
    moe_intermediate_size: Count | None = None
    n_shared_experts: int | None = None
    moe_shared_expert_intermediate_size: int | None = None
    moe_latent_size: Count | None = None
    num_nextn_predict_layers: int | None = None
    mtp_hybrid_override_pattern: str | None = None
    mtp_layers_block_type: tuple[str, ...] | None = None


_PATTERN = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
_TYPES = {"linear_attention": "mamba", "full_attention": "attention", "sparse": "moe", "dense": "mlp"}


def _nemotron(config: _Nemotron, where: str) -> Shape:
    layers = _mixers(config, config.hybrid_override_pattern, config.layers_block_type, where)
    if layers is None:
        raise InputError(f"{where}: hybrid_override_pattern and layers_block_type are missing")
    if config.num_hidden_layers not in (None, len(layers)):
        raise InputError(f"{where}: num_hidden_layers is {config.num_hidden_layers}, and the pattern has {len(layers)}")
    predictor = _mixers(config, config.mtp_hybrid_override_pattern, config.mtp_layers_block_type, where)
    return Shape(layers, (predictor or ()) * (config.num_nextn_predict_layers or 0))


def _mixers(
    config: _Nemotron, pattern: str | None, types: tuple[str, ...] | None, where: str
) -> tuple[Layer, ...] | None:
    if types is None:
        if pattern is None:
            return None
        types = tuple(_PATTERN.get(letter, letter) for letter in pattern)
    kinds = tuple(_TYPES.get(kind, kind) for kind in types)
    known = {name: layer for name, layer in _nemotron_layers(config, where).items() if name in kinds}
    return tuple(typed_layers(kinds, known, len(kinds), where, "the pattern of layers"))


def _nemotron_layers(config: _Nemotron, where: str) -> dict[str, Layer]:
    heads = config.num_attention_heads
    head_dim = config.head_dim or config.attention_head_dim or config.hidden_size // heads
    mamba = Mamba(
        config.mamba_num_heads,
        config.mamba_head_dim,
        config.n_groups,
        config.ssm_state_size,
        config.conv_kernel,
        config.mamba_ssm_cache_dtype,
    )
    found = {
        "mamba": Layer(mamba, Absent()),
        "attention": Layer(GroupedQuery(heads, config.num_key_value_heads or heads, head_dim), Absent()),
    }
    if config.intermediate_size is not None:
        found["mlp"] = Layer(Absent(), UngatedMLP(config.intermediate_size))
    experts, used, width = config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size
    if experts is not None and used is not None and width is not None:
        shared = (config.n_shared_experts or 0) * (config.moe_shared_expert_intermediate_size or width)
        mixed = Experts(experts, used, width, shared=shared, gated=False, latent=config.moe_latent_size)
        found["moe"] = Layer(Absent(), mixed)
    return found


@dataclass(frozen=True, kw_only=True)
class _LinearLayers:
    """The sizes of linear attention, and which layers have which, counted from 1."""

    num_heads: Count
    head_dim: Count
    short_conv_kernel_size: Count
    use_full_rank_gate: bool = False
    full_attn_layers: tuple[int, ...] = ()
    kda_layers: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _WithDelta(WithLatent):
    """Fields of Kimi delta attention beside latent attention: in an object, or as transformers 5 writes them."""

    linear_attn_config: dict[str, Any] | None = None
    linear_num_heads: Count | None = None
    linear_head_dim: Count | None = None
    linear_conv_kernel_dim: Count | None = None
    routed_expert_hidden_size: Count | None = None


def _linear_layers(config: _WithDelta, where: str) -> _LinearLayers:
    values = config.linear_attn_config
    if values is None:
        values = {
            "num_heads": config.linear_num_heads,
            "head_dim": config.linear_head_dim,
            "short_conv_kernel_size": config.linear_conv_kernel_dim,
        }
    return checked(values, _LinearLayers, f"{where}: linear_attn_config", others=True)


def _with_delta(config: _WithDelta, where: str) -> Shape:
    """Kimi Linear, Kimi K3, and GLM-5.3-Flash, whose latent attention is sparse."""
    linear, count = _linear_layers(config, where), config.num_hidden_layers
    delta = KimiDelta(linear.num_heads, linear.head_dim, linear.short_conv_kernel_size, linear.use_full_rank_gate)
    latent = latent_of(config, where)
    known: dict[str, Attention] = {INDEXED if latent.indexer else FULL: latent, LINEAR: delta}
    if config.layer_types is not None:
        attentions = typed_layers(config.layer_types, known, count, where)
    elif sorted((*linear.full_attn_layers, *linear.kda_layers)) == list(range(1, count + 1)):
        attentions = [latent if index in linear.full_attn_layers else delta for index in range(1, count + 1)]
    else:
        raise InputError(f"{where}: linear_attn_config: full_attn_layers and kda_layers are not layers 1 to {count}")
    experts = experts_of(config, where, latent=config.routed_expert_hidden_size)
    layers = tuple(map(Layer, attentions, mlps_of(config, experts, where)))
    return Shape(layers, (Layer(latent, layers[-1].mlp),) * (config.num_nextn_predict_layers or 0))


FAMILIES = (
    Family(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _QwenHybrid, _qwen_hybrid),
    Family(("nemotron_h",), _Nemotron, _nemotron),
    # vLLM leaves the latent's projections as they are (`kimi_k3/nvidia/model.py`, 0.32).
    Family(("kimi_linear", "glm5_next_text"), _WithDelta, _with_delta, modules=modules_without("expert_latent")),
)
