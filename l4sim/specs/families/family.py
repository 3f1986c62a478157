"""What a family of models is, and the fields that most have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple, TypeVar

from msgspec import Meta

from l4sim.errors import InputError
from l4sim.json_files import Count
from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.layers import MLP, Attention
from l4sim.specs.quantization import MODULES

# How layers' attention is called in ``layer_types``.
FULL, SLIDING, CHUNKED, LINEAR = "full_attention", "sliding_attention", "chunked_attention", "linear_attention"
INDEXED = "indexed_attention"
_OLDER_NAMES = {"deepseek_sparse_attention": INDEXED}


Kind = TypeVar("Kind")

LayerCount = Annotated[int, Meta(ge=1, le=10_000)]
"""A number of layers: more are no model, and would take forever to list."""


class Layer(NamedTuple):
    """One layer of a model."""

    attention: Attention
    mlp: MLP


@dataclass(frozen=True, slots=True)
class Shape:
    """What a family's ``config.json`` tells beyond the fields that all have."""

    layers: tuple[Layer, ...]
    """In order."""
    predictors: tuple[Layer, ...] = ()
    """Layers that predict further tokens."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models whose layers are told by the same fields."""

    model_types: tuple[str, ...]
    fields: type[Decoder]
    """What is read."""
    shape: Callable[[Any, str], Shape]
    """From an instance of ``fields`` and what errors call the file, to the layers.

    Raises InputError where fields do not go together."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Of fields that published files leave out, as transformers has them."""
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MODULES)
    """Names of the parts' modules in checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The fields that every family has; files may have any others."""

    hidden_size: Count
    vocab_size: Count
    max_position_embeddings: Count
    tie_word_embeddings: bool = False


@dataclass(frozen=True, kw_only=True)
class ExpertLayers:
    """Fields that tell which layers of a model have experts, and what MLP stands beside these or in their place."""

    intermediate_size: Count | None = None
    n_shared_experts: int | None = None
    shared_expert_intermediate_size: int | None = None
    first_k_dense_replace: int | None = None
    moe_layer_freq: int | tuple[int, ...] | None = None
    mlp_layer_types: tuple[str, ...] | None = None
    decoder_sparse_step: Count | None = None
    mlp_only_layers: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Headed(Decoder):
    """Fields of models with grouped-query attention."""

    num_hidden_layers: LayerCount
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    sliding_window: Count | None = None
    use_sliding_window: bool | None = True
    """Qwen's files give a window that this then switches off; others have no such switch."""
    max_window_layers: int | None = None
    """Qwen's: layers from here on have the window."""
    layer_types: tuple[str, ...] | None = None
    num_nextn_predict_layers: int | None = None


def needed(value: Kind | None, name: str, where: str) -> Kind:
    """A field that a family needs though most do without it.

    Raises:
        InputError: it is missing.
    """
    if value is None:
        raise InputError(f"{where}: {name} is missing")
    return value


def grouped_query(config: Headed, where: str) -> GroupedQuery:
    """The attention of a model's full layers.

    Raises:
        InputError: numbers of heads that do not go together.
    """
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads or heads
    if heads % kv_heads:
        raise InputError(f"{where}: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}")
    if config.head_dim is None and config.hidden_size % heads:
        raise InputError(f"{where}: head_dim is missing and num_attention_heads does not divide hidden_size")
    return GroupedQuery(heads, kv_heads, config.head_dim or config.hidden_size // heads)


def windowed(attention: GroupedQuery, window_tokens: int, config: Decoder) -> GroupedQuery | VariedQuery:
    """The same with a window; as it is where the window reaches as far as the longest context."""
    if window_tokens >= config.max_position_embeddings:
        return attention
    return varied(attention, window_tokens=window_tokens)


def typed_layers(
    kinds: tuple[str, ...], known: Mapping[str, Kind], count: int, where: str, name: str = "layer_types"
) -> list[Kind]:
    """What each layer has, by its name in ``layer_types``; files may list predictors too, at the end.

    Raises:
        InputError: a name that is not known, or not as many as layers.
    """
    if len(kinds) < count:
        raise InputError(f"{where}: {name} names {len(kinds)} layers of {count}")
    kinds = tuple(_OLDER_NAMES.get(kind, kind) for kind in kinds[:count])
    for kind in kinds:
        if kind not in known:
            raise InputError(f"{where}: {name} names {kind!r}, accepted are {', '.join(known)}")
    return [known[kind] for kind in kinds]


def attentions_of(config: Headed, where: str) -> list[GroupedQuery | VariedQuery]:
    """The attention of each layer of a model of full and sliding grouped-query attention.

    Raises:
        InputError: fields that do not go together.
    """
    full, count = grouped_query(config, where), config.num_hidden_layers
    window = config.sliding_window if config.use_sliding_window else None
    by_type: dict[str, GroupedQuery | VariedQuery] = {FULL: full}
    if window is not None:
        by_type[SLIDING] = windowed(full, window, config)
    if config.layer_types is not None:
        if window is None and SLIDING in config.layer_types:
            raise InputError(f"{where}: layer_types names {SLIDING!r}, and sliding_window is missing or switched off")
        return typed_layers(config.layer_types, by_type, count, where)
    if window is None:
        return [full] * count
    # Only Qwen's files have both, and then the first layers are full.
    first = config.max_window_layers if config.max_window_layers is not None else 0
    return [full if index < first else by_type[SLIDING] for index in range(count)]


def predictors_like(layers: tuple[Layer, ...], count: int | None) -> tuple[Layer, ...]:
    """Layers for the prediction of further tokens, as most models have them: like the last one."""
    return layers[-1:] * (count or 0)


def varied(attention: GroupedQuery | VariedQuery, **changes: Any) -> VariedQuery:
    """The same attention with something varied about it."""
    if isinstance(attention, GroupedQuery):
        attention = VariedQuery(attention.heads, attention.kv_heads, attention.head_dim, attention.head_dim)
    return replace(attention, **changes)
