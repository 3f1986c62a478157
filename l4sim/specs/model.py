"""Models: the shape of a dense decoder-only transformer, read from a Hugging Face ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4sim.errors import InputError

_BUNDLED = Path(__file__).resolve().parent / "models"

_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
_DTYPES = ("bfloat16", "float16")

# Fields whose presence (and truth) means an architecture with other costs than a dense decoder's.
_REFUSED = {
    "num_experts": "mixture of experts",
    "num_local_experts": "mixture of experts",
    "n_routed_experts": "mixture of experts",
    "kv_lora_rank": "multi-head latent attention (MLA)",
    "is_encoder_decoder": "an encoder-decoder",
    "quantization_config": "quantised weights",
}


@dataclass(frozen=True, slots=True)
class Model:
    """A dense Llama-like model with grouped-query attention and gated MLP."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_model_len: int
    """The longest context (prompt and output) in tokens that the model was made for."""
    tie_embeddings: bool = False
    dtype_bytes: int = 2

    @property
    def parameters(self) -> int:
        """Number of weights (norms left out: under a thousandth)."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        mlp = 3 * self.hidden * self.intermediate
        embeddings = self.vocab * self.hidden * (1 if self.tie_embeddings else 2)
        return self.layers * (attention + mlp) + embeddings

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, over all tensor-parallel ranks."""
        return self.parameters * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes, over all tensor-parallel ranks."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype_bytes


def list_models() -> tuple[str, ...]:
    """Names of the bundled models, sorted."""
    return tuple(sorted(path.stem for path in _BUNDLED.glob("*.json")))


def load_model(name_or_path: str) -> Model:
    """A bundled model by name, or any dense Llama, Mistral or Qwen model by the path of its ``config.json``.

    A path may name the file or the folder that holds it. The bundled files carry the shapes of the models that
    Meta and Qwen publish on Hugging Face; ``tiny`` is ours.

    Raises:
        InputError: no such model; a field that is missing or invalid; an architecture that is not modelled.
    """
    if name_or_path in list_models():
        return _read(_BUNDLED / f"{name_or_path}.json", name_or_path)
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(f"no model '{name_or_path}': accepted are {', '.join(list_models())}, or a config.json's path")
    return _read(path, path.parent.name if path.name == "config.json" else path.stem)


def _read(path: Path, name: str) -> Model:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a JSON object")
    _refuse_other_architectures(config, path)
    hidden, heads = _positive(config, "hidden_size", path), _positive(config, "num_attention_heads", path)
    kv_heads = _positive(config, "num_key_value_heads", path, default=heads)
    if heads % kv_heads:
        raise InputError(f"{path}: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}")
    if config.get("head_dim") is None and hidden % heads:
        raise InputError(f"{path}: head_dim is missing and num_attention_heads {heads} does not divide hidden_size")
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise InputError(f"{path}: tie_word_embeddings is {tied!r}, accepted are true and false")
    return Model(
        name=name,
        layers=_positive(config, "num_hidden_layers", path),
        hidden=hidden,
        intermediate=_positive(config, "intermediate_size", path),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_positive(config, "head_dim", path, default=hidden // heads),
        vocab=_positive(config, "vocab_size", path),
        max_model_len=_max_model_len(config, path),
        tie_embeddings=tied,
    )


def _refuse_other_architectures(config: Mapping[str, Any], path: Path) -> None:
    for field, what in _REFUSED.items():
        if config.get(field):
            raise InputError(f"{path}: {field} means {what}, accepted are dense decoders in bf16 or fp16")
    model_type = config.get("model_type")
    if model_type not in _MODEL_TYPES:
        raise InputError(f"{path}: model_type is {model_type!r}, accepted are {', '.join(_MODEL_TYPES)}")
    for architecture in config.get("architectures") or ():
        if not str(architecture).endswith("ForCausalLM"):
            raise InputError(f"{path}: architectures names {architecture}, accepted are ...ForCausalLM decoders")
    # Qwen configs give a window that use_sliding_window then switches off; Mistral's has no such switch.
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise InputError(f"{path}: sliding_window is {config['sliding_window']}, accepted is full attention (null)")
    dtype = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    if dtype not in _DTYPES:
        raise InputError(f"{path}: torch_dtype is {dtype!r}, accepted are {' and '.join(_DTYPES)}")


def _max_model_len(config: Mapping[str, Any], path: Path) -> int:
    """As vLLM derives it: YaRN stretches the original length, Llama 3's scaling is in the figure already."""
    length = _positive(config, "max_position_embeddings", path)
    scaling = config.get("rope_scaling")
    if scaling is None:
        return length
    if not isinstance(scaling, dict):
        raise InputError(f"{path}: rope_scaling is {scaling!r}, accepted is null or an object")
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("llama3", "default"):
        return length
    if kind == "yarn":
        factor = scaling.get("factor")
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor < 1:
            raise InputError(f"{path}: rope_scaling.factor is {factor!r}, accepted is a number >= 1")
        return int(_positive(scaling, "original_max_position_embeddings", path, default=length) * factor)
    raise InputError(f"{path}: rope_scaling type is {kind!r}, accepted are llama3, yarn and default")


def _positive(config: Mapping[str, Any], field: str, path: Path, default: int | None = None) -> int:
    value = config.get(field)
    if value is None and default is not None:
        return default
    if value is None:
        raise InputError(f"{path}: {field} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{path}: {field} is {value!r}, accepted is a whole number >= 1")
    return value
