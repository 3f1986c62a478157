"""A Hugging Face ``config.json``: which family's fields it has, how far its contexts reach, how it is quantised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from l4sim.errors import InputError
from l4sim.json_files import Count, Positive, checked, read_plain
from l4sim.specs.dtypes import DTYPES
from l4sim.specs.families import FAMILIES
from l4sim.specs.families.family import Decoder, Family, Shape
from l4sim.specs.quantization import NOT_QUANTISED, Quantization, read_quantization

_QUANTISATION_FILE = "hf_quant_config.json"
_TEXT = "text_config"
# Fields that a file of several models has beside its text_config, and that hold for the text model too.
_SHARED = ("tie_word_embeddings", "torch_dtype", "dtype", "quantization_config", "expert_dtype")
# What else such a file has, whose weights are no part of the text model.
_OTHER_MODELS = ("vision_config", "audio_config")

# Names that publishers give the same field.
_ALIASES = {
    "num_local_experts": "num_experts",
    "n_routed_experts": "num_experts",
    "moe_num_experts": "num_experts",
    "experts_per_token": "num_experts_per_tok",
    "num_experts_per_token": "num_experts_per_tok",
    "moe_top_k": "num_experts_per_tok",
    "top_k_experts": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "num_attention_groups": "num_key_value_heads",
    "model_max_length": "max_position_embeddings",
}

# Fields whose presence (and truth) means an architecture with other sizes: who does not read them must not pass over
# them.
_TELLING = {
    "is_encoder_decoder": "an encoder-decoder",
    "num_experts": "mixture of experts",
    "n_shared_experts": "shared experts",
    "shared_expert_intermediate_size": "shared experts",
    "moe_latent_size": "experts of a latent size",
    "routed_expert_hidden_size": "experts of a latent size",
    "kv_lora_rank": "multi-head latent attention (MLA)",
    "v_head_dim": "values of another width than keys",
    "index_topk": "attention to tokens that an indexer chooses",
    "sparse_attention_config": "attention to blocks that an index chooses",
    "compress_ratios": "compressed attention",
    "sliding_window": "sliding-window attention",
    "attention_chunk_size": "chunked attention",
    "layer_types": "layers of several kinds",
    "hybrid_layer_pattern": "layers of several kinds",
    "hybrid_override_pattern": "layers of several kinds",
    "layers_block_type": "layers of several kinds",
    "block_configs": "layers of several kinds",
    "attention_other_setting": "layers of several kinds",
    "linear_attn_config": "linear attention",
    "linear_num_value_heads": "gated delta nets",
    "linear_num_heads": "linear attention",
    "compress_rates": "compressed attention",
    "mamba_num_heads": "Mamba",
    "ssm_state_size": "Mamba",
    "num_kv_shared_layers": "layers that share keys and values",
    "hidden_size_per_layer_input": "embeddings of each layer",
    "use_double_wide_mlp": "MLPs of several widths",
    "engram_layer_ids": "memories of n-grams (Engram)",
}

# Those that no family reads.
_UNREAD = set(_TELLING).difference(*({each.name for each in fields(family.fields)} for family in FAMILIES.values()))

# Kinds of rotary scaling whose stretch max_position_embeddings tells already; YaRN's is its factor.
_STRETCHED = (None, "llama3", "default", "mrope", "proportional")
_YARN = ("yarn", "deepseek_yarn")
_LINEAR = "linear"
# Whose max_position_embeddings has linear scaling in it (as vLLM knows, `_get_and_verify_max_len`).
_LINEAR_STRETCHED = ("gemma3_text",)


@dataclass(frozen=True, slots=True)
class _Scaling:
    """How rotary embeddings reach beyond the lengths of training."""

    rope_type: str | None = None
    type: str | None = None
    """``rope_type``'s older name."""
    factor: Positive | None = None
    original_max_position_embeddings: Count | None = None

    @property
    def kind(self) -> str | None:
        return self.rope_type or self.type


@dataclass(frozen=True, slots=True)
class _Architectures:
    """What code the weights are for."""

    architectures: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a ``config.json`` tells of a decoder."""

    decoder: Decoder
    family: Family
    shape: Shape
    max_model_len: int
    """The longest context in tokens."""
    dtype: str
    """Of what is not quantised, and of hidden states; bf16 where the file does not tell."""
    quantization: Quantization
    left_out: tuple[str, ...]
    """Other models in the file, as their fields are called: their weights are not counted."""


def read_config(path: Path) -> ModelConfig:
    """A decoder's shape and formats from its ``config.json``, and from ``hf_quant_config.json`` beside it.

    Raises:
        InputError: a field that is missing, invalid or not read for this kind of model; a kind of model, a rotary
            scaling or a quantisation that is not known.
    """
    outer, where = read_plain(path), str(path)
    values, where = _text_model(outer, where)
    family = _family(outer, values, where)
    given, values = values, _one_name_each({**family.defaults, **values}, where)
    if values.get("use_sliding_window") is False:
        values["sliding_window"] = None
    _refuse_unread(given, values, family, where)
    decoder = checked(values, family.fields, where, others=True)
    return ModelConfig(
        decoder,
        family,
        family.shape(decoder, where),
        _max_model_len(values, decoder, where),
        _dtype(values, where),
        _quantization(path, values, where),
        tuple(name for name in _OTHER_MODELS if outer.get(name)),
    )


def _text_model(outer: dict[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """The text model's own fields, and what errors call them."""
    text = outer.get(_TEXT)
    if text is None:
        return outer, where
    if not isinstance(text, dict):
        raise InputError(f"{where}: {_TEXT} is not an object")
    shared = {name: outer[name] for name in _SHARED if name in outer}
    own = {name: value for name, value in text.items() if value is not None or name not in shared}
    return {"model_type": f"{outer.get('model_type')}_text", **shared, **own}, f"{where}: {_TEXT}"


def _family(outer: Mapping[str, Any], values: Mapping[str, Any], where: str) -> Family:
    model_type = str(values.get("model_type"))
    for architecture in checked(outer, _Architectures, where, others=True).architectures or ():
        if not architecture.endswith(("ForCausalLM", "ForConditionalGeneration")):
            raise InputError(
                f"{where}: architectures names {architecture}, accepted are ...ForCausalLM and "
                "...ForConditionalGeneration decoders"
            )
    if model_type not in FAMILIES:
        told = dict.fromkeys(what for name, what in _TELLING.items() if values.get(name) and name in _UNREAD)
        means = f", with {' and '.join(told)}" if told else ""
        raise InputError(f"{where}: model_type is {model_type!r}{means}: accepted are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[model_type]


def _one_name_each(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields under one name each.

    Raises:
        InputError: two names of one field have different values.
    """
    found = dict(values)
    for alias, name in _ALIASES.items():
        value = found.pop(alias, None)
        if value is None:
            continue
        if found.get(name) not in (None, value):
            raise InputError(f"{where}: {alias} is {value!r}, and {name} is {found[name]!r}: they mean the same")
        found[name] = value
    return found


def _refuse_unread(given: Mapping[str, Any], values: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse fields that mean what the family's reader does not look at, by the names that they were given."""
    read = {each.name for each in fields(family.fields)}
    for name, what in _TELLING.items():
        if values.get(name) and name not in read:
            called = next((alias for alias, own in _ALIASES.items() if own == name and alias in given), name)
            raise InputError(f"{where}: {called} means {what}, and is not read of a {values['model_type']}")


def _dtype(values: Mapping[str, Any], where: str) -> str:
    named = next((name for name in ("torch_dtype", "dtype") if values.get(name)), None)
    dtype = values[named] if named else "bfloat16"
    if dtype not in DTYPES:
        raise InputError(f"{where}: {named} is {dtype!r}, accepted are {' and '.join(DTYPES)}")
    return str(dtype)


def _quantization(path: Path, values: Mapping[str, Any], where: str) -> Quantization:
    own, beside = values.get("quantization_config"), path.parent / _QUANTISATION_FILE
    expert_dtype = values.get("expert_dtype")
    if own is not None:
        return read_quantization(own, f"{where}: quantization_config", expert_dtype=expert_dtype)
    if path.name != "config.json" or not beside.is_file():
        return NOT_QUANTISED
    recipe = read_plain(beside)
    return read_quantization(recipe.get("quantization", recipe), str(beside), expert_dtype=expert_dtype)


def _max_model_len(values: Mapping[str, Any], decoder: Decoder, where: str) -> int:
    length = decoder.max_position_embeddings
    for name in ("rope_scaling", "rope_parameters"):
        given = values.get(name)
        if given is None:
            continue
        for scaling in _scalings(given, f"{where}: {name}"):
            if scaling.kind in _YARN:
                if scaling.factor is None:
                    raise InputError(f"{where}: {name}: factor is missing")
                return int((scaling.original_max_position_embeddings or length) * scaling.factor)
            if scaling.kind in _STRETCHED or (scaling.kind == _LINEAR and values["model_type"] in _LINEAR_STRETCHED):
                continue
            raise InputError(f"{where}: {name}: rope_type is {scaling.kind!r}, accepted are llama3, yarn and default")
    return length


def _scalings(given: Any, where: str) -> list[_Scaling]:
    """The scaling of all layers, or of each kind of layers."""
    if isinstance(given, dict) and given and all(isinstance(value, dict) for value in given.values()):
        return [checked(value, _Scaling, f"{where}: {name}", others=True) for name, value in given.items()]
    return [checked(given, _Scaling, where, others=True)]
