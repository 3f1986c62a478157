"""Models: decoder-only transformers as groups of layers, read from a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from l4sim.errors import InputError
from l4sim.specs.dtypes import Dtypes, check_dtype, size_bytes
from l4sim.specs.hf_config import DenseConfig, read_dense_config
from l4sim.specs.layers import DenseMLP, GroupedQuery, LayerGroup

_BUNDLED = Path(__file__).resolve().parent / "models"


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder: an embedding, groups of layers that are alike, and a head.

    Raises:
        InputError: no layers, or an unknown number format.
    """

    name: str
    hidden: int
    vocab: int
    max_model_len: int
    """The longest context (prompt and output) in tokens that the model was made for."""
    groups: tuple[LayerGroup, ...]
    tie_embeddings: bool = False
    dtype: str = "bfloat16"
    """Of embedding, head, and the hidden states between layers."""

    def __post_init__(self) -> None:
        if not self.groups:
            raise InputError(f"{self.name}: no groups of layers, accepted is one or more")
        check_dtype(self.dtype)

    @property
    def layers(self) -> int:
        """Number of layers, over all groups."""
        return sum(group.count for group in self.groups)

    @property
    def embedding_parameters(self) -> int:
        """Number of weights of embedding and head."""
        return self.vocab * self.hidden * (1 if self.tie_embeddings else 2)

    @property
    def parameters(self) -> int:
        """Number of weights (norms left out: under a thousandth)."""
        return sum(group.parameters(self.hidden) for group in self.groups) + self.embedding_parameters

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, over all tensor-parallel ranks."""
        layers = sum(group.weight_bytes(self.hidden) for group in self.groups)
        return layers + size_bytes(self.embedding_parameters, self.dtype)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes in all layers, over all tensor-parallel ranks."""
        return sum(group.kv_bytes_per_token for group in self.groups)


def dense_model(
    name: str,
    *,
    layers: int,
    hidden: int,
    intermediate: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    vocab: int,
    max_model_len: int,
    tie_embeddings: bool = False,
    dtype: str = "bfloat16",
) -> Model:
    """A dense decoder of one group: grouped-query attention and gated MLPs, all in one number format.

    Raises:
        InputError: an unknown number format.
    """
    group = LayerGroup(
        layers, GroupedQuery(heads, kv_heads, head_dim), DenseMLP(intermediate), Dtypes(dtype, dtype, dtype)
    )
    return Model(name, hidden, vocab, max_model_len, (group,), tie_embeddings, dtype)


def with_layers(model: Model, count: int) -> Model:
    """A model with ``count`` layers of its one kind, which may be none.

    Raises:
        InputError: as ``uniform_layers``.
    """
    return replace(model, groups=(replace(uniform_layers(model), count=count),))


def uniform_layers(model: Model) -> LayerGroup:
    """The layers of a model whose layers are all alike, for what knows of one kind alone.

    Raises:
        InputError: the model has several groups.
    """
    if len(model.groups) > 1:
        counts = ", ".join(str(group.count) for group in model.groups)
        raise InputError(
            f"{model.name}: {len(model.groups)} groups of layers ({counts}), accepted is one: layers all alike"
        )
    return model.groups[0]


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
        return _dense(read_dense_config(_BUNDLED / f"{name_or_path}.json"), name_or_path)
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(f"no model '{name_or_path}': accepted are {', '.join(list_models())}, or a config.json's path")
    return _dense(read_dense_config(path), path.resolve().parent.name if path.name == "config.json" else path.stem)


def _dense(config: DenseConfig, name: str) -> Model:
    heads = config.num_attention_heads
    return dense_model(
        name,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=config.head_dim or config.hidden_size // heads,
        vocab=config.vocab_size,
        max_model_len=config.max_model_len,
        tie_embeddings=config.tie_word_embeddings,
        dtype=config.number_format,
    )
