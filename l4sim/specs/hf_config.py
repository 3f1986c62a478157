"""A Hugging Face ``config.json``: the fields that tell a dense decoder's shape, and those that tell it is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from l4sim.errors import InputError
from l4sim.json_files import Count, Positive, checked, read_plain
from l4sim.specs.dtypes import DTYPES

_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")

# Fields whose presence (and truth) means an architecture with other costs than a dense decoder's.
_REFUSED = {
    "num_experts": "mixture of experts",
    "num_local_experts": "mixture of experts",
    "n_routed_experts": "mixture of experts",
    "kv_lora_rank": "multi-head latent attention (MLA)",
    "is_encoder_decoder": "an encoder-decoder",
    "quantization_config": "quantised weights",
}

# Kinds of rotary scaling whose stretch max_position_embeddings tells already; YaRN's is its factor.
_STRETCHED = ("llama3", "default")
_YARN = "yarn"


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What tells a dense decoder from others."""

    model_type: str
    architectures: list[str] | None = None
    sliding_window: int | None = None
    use_sliding_window: bool | None = True
    """Qwen's configurations give a window that this then switches off; Mistral's have no such switch."""


@dataclass(frozen=True, slots=True)
class _RopeScaling:
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
class DenseConfig:
    """A dense decoder's shape, under the names of ``config.json``, which may have any other fields."""

    hidden_size: Count
    intermediate_size: Count
    num_attention_heads: Count
    num_hidden_layers: Count
    vocab_size: Count
    max_position_embeddings: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    tie_word_embeddings: bool = False
    rope_scaling: _RopeScaling | None = None
    torch_dtype: str | None = None
    dtype: str | None = None
    """``torch_dtype``'s newer name."""

    @property
    def number_format(self) -> str:
        """Of weights and activations; bf16 where the file does not tell."""
        return self.torch_dtype or self.dtype or "bfloat16"

    @property
    def max_model_len(self) -> int:
        """The longest context in tokens, as vLLM derives it."""
        length, scaling = self.max_position_embeddings, self.rope_scaling
        if scaling is None or scaling.kind != _YARN or scaling.factor is None:
            return length
        return int((scaling.original_max_position_embeddings or length) * scaling.factor)


def read_dense_config(path: Path) -> DenseConfig:
    """The shape of a dense Llama, Mistral or Qwen decoder.

    Raises:
        InputError: a field that is missing or invalid; an architecture that is not modelled.
    """
    values, where = read_plain(path), str(path)
    for field, what in _REFUSED.items():
        if values.get(field):
            raise InputError(f"{where}: {field} means {what}, accepted are dense decoders in bf16 or fp16")
    _refuse_other_architectures(checked(values, _Architecture, where, others=True), where)
    config = checked(values, DenseConfig, where, others=True)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if kv_heads is not None and heads % kv_heads:
        raise InputError(f"{where}: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}")
    if config.head_dim is None and config.hidden_size % heads:
        raise InputError(f"{where}: head_dim is missing and num_attention_heads does not divide hidden_size")
    if config.number_format not in DTYPES:
        raise InputError(f"{where}: torch_dtype is {config.number_format!r}, accepted are {' and '.join(DTYPES)}")
    if config.rope_scaling is not None:
        _refuse_other_scaling(config.rope_scaling, f"{where}: rope_scaling")
    return config


def _refuse_other_architectures(config: _Architecture, where: str) -> None:
    if config.model_type not in _MODEL_TYPES:
        raise InputError(f"{where}: model_type is {config.model_type!r}, accepted are {', '.join(_MODEL_TYPES)}")
    for architecture in config.architectures or ():
        if not architecture.endswith("ForCausalLM"):
            raise InputError(f"{where}: architectures names {architecture}, accepted are ...ForCausalLM decoders")
    if config.sliding_window and config.use_sliding_window:
        raise InputError(f"{where}: sliding_window is {config.sliding_window}, accepted is full attention (null)")


def _refuse_other_scaling(scaling: _RopeScaling, where: str) -> None:
    if scaling.kind not in (*_STRETCHED, _YARN):
        raise InputError(f"{where}: rope_type is {scaling.kind!r}, accepted are llama3, yarn and default")
    if scaling.kind == _YARN and scaling.factor is None:
        raise InputError(f"{where}: factor is missing")
