"""Models: decoder-only transformers as groups of layers, read from a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.dtypes import FORMATS, Dtypes, check_dtype, size_bytes
from l4sim.specs.families.family import Layer
from l4sim.specs.hf_config import ModelConfig, read_config
from l4sim.specs.layers import DenseLayers, LayerGroup
from l4sim.specs.mlp import DenseMLP

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
    """Of embedding and the hidden states between layers."""
    head_dtype: str | None = None
    """Of the head; None: ``dtype`` too."""
    predictor_parameters: int = 0
    """Number of weights of the layers that predict further tokens (MTP), which nothing else here counts: as if each
    were like the model's last layer, or as its file tells, behind a projection of two hidden states."""
    left_out: tuple[str, ...] = ()
    """What else the file holds, as its fields are called (a vision tower): nothing here counts its weights."""

    def __post_init__(self) -> None:
        if not self.groups:
            raise InputError(f"{self.name}: no groups of layers, accepted is one or more")
        check_dtype(self.dtype)
        check_dtype(self.head_dtype or self.dtype, FORMATS)

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
        """Number of weights (norms, biases and the like left out: under a thousandth)."""
        return sum(group.parameters(self.hidden) for group in self.groups) + self.embedding_parameters

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token is multiplied with: of experts those that it passes, the head, and not the
        embedding, of which it takes a row."""
        return sum(group.active_parameters(self.hidden) for group in self.groups) + self.vocab * self.hidden

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, over all tensor-parallel ranks."""
        return sum(self.weight_bytes_by_dtype.values())

    @property
    def weight_bytes_by_dtype(self) -> dict[str, int]:
        """The same by number format."""
        matrix = self.vocab * self.hidden
        found = {self.dtype: size_bytes(matrix, self.dtype)}
        parts = [group.weight_bytes_by_dtype(self.hidden) for group in self.groups]
        if not self.tie_embeddings:
            head = self.head_dtype or self.dtype
            parts.append({head: size_bytes(matrix, head)})
        for part in parts:
            for dtype, taken in part.items():
                found[dtype] = found.get(dtype, 0) + taken
        return found

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes in all layers, over all tensor-parallel ranks.

        In layers with a window it takes them only until the window has moved on: see ``kv_bytes``.
        """
        return sum(group.kv_bytes_per_token for group in self.groups)

    def kv_bytes(self, tokens: int) -> int:
        """Bytes that a sequence of so many tokens keeps in all layers, fixed states included, over all ranks."""
        return sum(group.kv_bytes(tokens) for group in self.groups)

    @property
    def beyond_dense(self) -> str | None:
        """What makes its layers others than `DenseLayers`; None if nothing does."""
        return next((found for group in self.groups if (found := group.beyond_dense)), None)


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
    uniform_layers(model)
    return replace(model, groups=(replace(model.groups[0], count=count),))


def with_kv_dtype(model: Model, dtype: str) -> Model:
    """A model whose KV cache is in another format.

    Raises:
        InputError: an unknown number format.
    """
    groups = tuple(replace(group, dtypes=replace(group.dtypes, kv=dtype)) for group in model.groups)
    return replace(model, groups=groups)


def with_kv_cache_dtype(model: Model, option: str) -> Model:
    """A model whose KV cache is in the format that the option ``kv_cache_dtype`` says: auto, bf16 (16 bits) or fp8."""
    return model if option == "auto" else with_kv_dtype(model, {"bf16": model.dtype, "fp8": "fp8"}[option])


def uniform_layers(model: Model) -> DenseLayers:
    """The layers of a dense model whose layers are all alike, for what knows of one kind alone.

    Raises:
        InputError: the model has several groups, or layers that are not dense.
    """
    if len(model.groups) > 1:
        counts = ", ".join(str(group.count) for group in model.groups)
        raise InputError(
            f"{model.name}: {len(model.groups)} groups of layers ({counts}), accepted is one: layers all alike"
        )
    try:
        return model.groups[0].dense()
    except InputError as error:
        raise InputError(f"{model.name}: {error}") from None


def list_models() -> tuple[str, ...]:
    """Names of the bundled models, sorted."""
    return tuple(sorted(path.stem for path in _BUNDLED.glob("*.json")))


def load_model(name_or_path: str) -> Model:
    """A bundled model by name, or any of a known family (`l4sim.specs.families`) by the path of its ``config.json``.

    A path may name the file or the folder that holds it, in which ``hf_quant_config.json`` is read too. The bundled
    files carry the shapes of the models that Meta and Qwen publish on Hugging Face; ``tiny`` is ours.

    Raises:
        InputError: no such model; a field that is missing or invalid; an architecture that is not known.
    """
    if name_or_path in list_models():
        return _model(read_config(_BUNDLED / f"{name_or_path}.json"), name_or_path)
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(f"no model '{name_or_path}': accepted are {', '.join(list_models())}, or a config.json's path")
    return _model(read_config(path), path.resolve().parent.name if path.name == "config.json" else path.stem)


def _model(config: ModelConfig, name: str) -> Model:
    decoder, shape, quantization = config.decoder, config.shape, config.quantization
    counts: dict[tuple[Layer, Dtypes], int] = {}
    for index, layer in enumerate(shape.layers):
        alike = layer, _dtypes(config, index, layer)
        counts[alike] = counts.get(alike, 0) + 1
    hidden = decoder.hidden_size
    return Model(
        name,
        hidden,
        decoder.vocab_size,
        config.max_model_len,
        tuple(LayerGroup(count, layer.attention, layer.mlp, dtypes) for (layer, dtypes), count in counts.items()),
        decoder.tie_word_embeddings,
        config.dtype,
        quantization.head,
        sum(LayerGroup(1, *layer).parameters(hidden) + 2 * hidden**2 for layer in shape.predictors),
        config.left_out,
    )


def _dtypes(config: ModelConfig, index: int, layer: Layer) -> Dtypes:
    """The formats of one layer, whose parts alone are asked for."""
    own = {matrix.part for part in layer for matrix in part.matrices(config.decoder.hidden_size)}
    modules = {part: names for part, names in config.family.modules.items() if part in own}
    parts = tuple(sorted(config.quantization.formats(index, modules).items()))
    return Dtypes(config.dtype, config.quantization.kv or config.dtype, config.dtype, parts)
