"""Models: the shape of a dense decoder-only transformer, read from a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from l4sim.errors import InputError
from l4sim.specs.fields import Fields, read_fields

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
        return _model(read_fields(_BUNDLED / f"{name_or_path}.json"), name_or_path)
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(f"no model '{name_or_path}': accepted are {', '.join(list_models())}, or a config.json's path")
    return _model(read_fields(path), path.resolve().parent.name if path.name == "config.json" else path.stem)


def _model(config: Fields, name: str) -> Model:
    _refuse_other_architectures(config)
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise InputError(f"{config.where}: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}")
    if config.values.get("head_dim") is None and hidden % heads:
        raise InputError(f"{config.where}: head_dim is missing and num_attention_heads does not divide hidden_size")
    return Model(
        name=name,
        layers=config.count("num_hidden_layers"),
        hidden=hidden,
        intermediate=config.count("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=config.count("head_dim", default=hidden // heads),
        vocab=config.count("vocab_size"),
        max_model_len=_max_model_len(config),
        tie_embeddings=config.flag("tie_word_embeddings", default=False),
    )


def _refuse_other_architectures(config: Fields) -> None:
    values, where = config.values, config.where
    for field, what in _REFUSED.items():
        if values.get(field):
            raise InputError(f"{where}: {field} means {what}, accepted are dense decoders in bf16 or fp16")
    model_type = config.text("model_type")
    if model_type not in _MODEL_TYPES:
        raise InputError(f"{where}: model_type is {model_type!r}, accepted are {', '.join(_MODEL_TYPES)}")
    for architecture in values.get("architectures") or ():
        if not str(architecture).endswith("ForCausalLM"):
            raise InputError(f"{where}: architectures names {architecture}, accepted are ...ForCausalLM decoders")
    # Qwen configs give a window that use_sliding_window then switches off; Mistral's has no such switch.
    if values.get("sliding_window") and values.get("use_sliding_window", True):
        raise InputError(f"{where}: sliding_window is {values['sliding_window']}, accepted is full attention (null)")
    dtype = values.get("torch_dtype") or values.get("dtype") or "bfloat16"
    if dtype not in _DTYPES:
        raise InputError(f"{where}: torch_dtype is {dtype!r}, accepted are {' and '.join(_DTYPES)}")


def _max_model_len(config: Fields) -> int:
    """As vLLM derives it: YaRN stretches the original length, Llama 3's scaling is in the figure already."""
    length = config.count("max_position_embeddings")
    if config.values.get("rope_scaling") is None:
        return length
    scaling = config.object("rope_scaling")
    kind = scaling.values.get("rope_type", scaling.values.get("type"))
    if kind in ("llama3", "default"):
        return length
    if kind == "yarn":
        return int(scaling.count("original_max_position_embeddings", default=length) * scaling.positive("factor"))
    raise InputError(f"{scaling.where}: rope_type is {kind!r}, accepted are llama3, yarn and default")
