"""Which weights of a checkpoint are quantised, and how: from ``quantization_config`` or ``hf_quant_config.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import translate
from typing import Any, TypeVar

from l4sim.errors import InputError
from l4sim.json_files import checked

# Where checkpoints have their layers; every name of a module is tried behind each.
_ROOTS = (
    "model.layers.",
    "model.language_model.layers.",
    "language_model.model.layers.",
    "language_model.layers.",
    "backbone.layers.",
    "layers.",
)


def _in(folders: Iterable[str], names: str) -> tuple[str, ...]:
    return tuple(f"{folder}.{name}" for folder in folders for name in names.split())


_ATTENTION = ("self_attn", "linear_attn", "mixer", "attn")
_MLP = ("mlp", "mixer", "feed_forward", "ffn", "block_sparse_moe", "moe")

# Modules of a layer in checkpoints, by the part that vLLM merges them into. What is not here is never quantised:
# routers, gates of heads, convolutions, the weights of an indexer's heads (they are bf16 in every recipe known).
MODULES: Mapping[str, tuple[str, ...]] = {
    "qkv": _in(_ATTENTION, "q_proj k_proj v_proj qkv_proj"),
    "gate": _in(_ATTENTION, "gate_proj g_proj"),
    "output": _in(_ATTENTION, "o_proj o_b_proj wo_b"),
    "output_down": _in(_ATTENTION, "o_a_proj wo_a"),
    "index": _in(_ATTENTION, "index_q_proj index_k_proj indexer.q_proj indexer.k_proj"),
    "query": _in(_ATTENTION, "q_proj"),
    "query_down": _in(_ATTENTION, "q_a_proj wq_a"),
    "query_up": _in(_ATTENTION, "q_b_proj wq_b"),
    "latent": _in(_ATTENTION, "kv_a_proj_with_mqa kv_proj wkv"),
    "latent_up": _in(_ATTENTION, "kv_b_proj"),
    "compressor": _in(_ATTENTION, "compressor.kv_proj compressor.wkv"),
    "index_query": _in(_ATTENTION, "indexer.wq_b compressor.indexer.q_b_proj"),
    "index_key": _in(_ATTENTION, "indexer.wk"),
    "recurrent_in": _in(_ATTENTION, "in_proj in_proj_qkv in_proj_qkvz q_proj qkv_proj"),
    "recurrent_gate": _in(_ATTENTION, "in_proj_z in_proj_qkvz g_proj g_a_proj"),
    "recurrent_decay": _in(_ATTENTION, "f_a_proj"),
    "recurrent_heads": _in(_ATTENTION, "in_proj_a in_proj_ba b_proj"),
    "recurrent_out": _in(_ATTENTION, "out_proj o_proj"),
    "up": _in(_MLP, "gate_proj up_proj gate_up_proj w1"),
    "down": _in(_MLP, "down_proj w2"),
    "expert_up": _in((*(f"{folder}.experts" for folder in _MLP), "experts"), "0.gate_proj 0.up_proj 0.w1 gate_up_proj"),
    "expert_down": _in((*(f"{folder}.experts" for folder in _MLP), "experts"), "0.down_proj 0.w2 down_proj"),
    "expert_latent": _in(_MLP, "fc1_latent_proj"),
    "shared_up": (
        *_in(
            (f"{folder}.{name}" for folder in _MLP for name in ("shared_experts", "shared_expert")), "gate_proj up_proj"
        ),
        "share_expert.gate_proj",
    ),
    "shared_down": (
        *_in((f"{folder}.{name}" for folder in _MLP for name in ("shared_experts", "shared_expert")), "down_proj"),
        "share_expert.down_proj",
    ),
}


def modules_named(**names: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """`MODULES` where some parts are called otherwise."""
    return {**MODULES, **names}


def modules_without(part: str) -> Mapping[str, tuple[str, ...]]:
    """`MODULES` where one part is never quantised."""
    return {name: modules for name, modules in MODULES.items() if name != part}


_HEADS = ("lm_head", "language_model.lm_head", "head")

_EXPERTS = ("expert_up", "expert_down")


class Modules:
    """Modules of a checkpoint, told by names, by names with ``*``, or by regular expressions after ``re:``."""

    def __init__(self, patterns: Iterable[str] = (), *, abbreviated: bool = False) -> None:
        """``abbreviated``: whether a pattern may be the last parts of a name, as vLLM understands ignored ones."""
        self.patterns = tuple(patterns)
        self._abbreviated = abbreviated
        self._names: set[str] = set()
        self._patterns: list[str] = []
        sources = []
        for pattern in self.patterns:
            if pattern.startswith("re:") or "*" in pattern:
                self._patterns.append(pattern)
                sources.append(pattern[3:] if pattern.startswith("re:") else translate(pattern))
            else:
                self._names.add(pattern)
        # One expression, whose alternatives are told apart by their group: a file may have thousands.
        self._any = re.compile("|".join(f"(?P<_{index}>{source})" for index, source in enumerate(sources)))
        self._found: dict[str, str | None] = {}

    def find(self, name: str) -> str | None:
        """The pattern that means this module, or a module that it is part of; None if there is none."""
        if name not in self._found:
            above = name.rpartition(".")[0]
            self._found[name] = self._own(name) or (self.find(above) if above else None)
        return self._found[name]

    def _own(self, name: str) -> str | None:
        last = name
        while last:
            if last in self._names:
                return last
            last = last.partition(".")[2] if self._abbreviated else ""
        match = self._any.match(name) if self._patterns else None
        return self._patterns[int(str(match.lastgroup)[1:])] if match else None


@dataclass(frozen=True, slots=True)
class Quantization:
    """The formats of a checkpoint's weights, where they are not its ``dtype``."""

    linear: str | None = None
    """Of every linear layer that neither ``named`` nor ``ignored`` tells of; None: not quantised."""
    experts: str | None = None
    """Of experts, if another."""
    named: Mapping[str, str] = field(default_factory=dict)
    """By module, as `Modules` takes them."""
    ignored: Modules = field(default_factory=Modules)
    """Modules that are not quantised."""
    kv: str | None = None
    """Of the KV cache, if the checkpoint tells."""
    _named: Modules = field(init=False)
    _roots: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_named", Modules(self.named))
        told = (*self.named, *self.ignored.patterns)
        # Patterns that begin elsewhere mean layers behind any root, and so behind the first.
        roots = (root for root in _ROOTS[1:] if any(pattern.startswith(root) for pattern in told))
        object.__setattr__(self, "_roots", (_ROOTS[0], *roots))

    def formats(self, layer: int, modules: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        """The formats of one layer's parts that are quantised; ``modules`` are the parts' names, as `MODULES`."""
        if self.linear is None and not self.named:
            return {}
        found = {}
        for part, names in modules.items():
            dtype = self._format(
                [f"{root}{layer}.{name}" for root in self._roots for name in names],
                (self.experts if part in _EXPERTS else None) or self.linear,
            )
            if dtype is not None:
                found[part] = dtype
        return found

    @property
    def head(self) -> str | None:
        """The format of the language model's head; None if it is not quantised."""
        return self._format(_HEADS, None)

    def _format(self, names: Iterable[str], otherwise: str | None) -> str | None:
        if self.named:
            named = next((found for name in names if (found := self._named.find(name)) is not None), None)
            if named is not None:
                return self.named[named]
        return None if otherwise is None or any(self.ignored.find(name) for name in names) else otherwise


NOT_QUANTISED = Quantization()

# ModelOpt's names of recipes. NVFP4's activations make no difference to what is stored.
_MODELOPT = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8-block128",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "W4A8_NVFP4_FP8": "nvfp4",
    "MXFP8": "mxfp8",
    "MXFP4": "mxfp4",
    "W4A8_MXFP4_FP8": "mxfp4",
}
# Type and bits of a number, and how many of a group share a scale (without groups, a row or a whole tensor does).
_COMPRESSED = {
    "float8": "fp8",
    "float8-g32": "mxfp8",
    "float4-g16": "nvfp4",
    "float4-g32": "mxfp4",
    "int8": "int8",
    "int4": "int4",
    "int4-g32": "int4-g32",
    "int4-g64": "int4-g64",
    "int4-g128": "int4-g128",
}
_FP8_BLOCKS = {None: "fp8", (128, 128): "fp8-block128", (32, 32): "fp8-block32"}
_DEEPSEEK_EXPERTS = {None: None, "fp4": "mxfp4", "fp8": None}
_KV = {"FP8": "fp8", "NVFP4": "nvfp4"}
_IGNORED = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
# Classes of modules, which compressed-tensors takes for names of modules.
_CLASSES = ("Linear",)


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """The types of the fields that are read; files may have any others."""

    quant_method: str | None = None
    quant_algo: str | None = None
    moe_quant_algo: str | None = None
    weight_block_size: tuple[int, ...] | None = None
    ignore: tuple[str, ...] | None = None
    exclude_modules: tuple[str, ...] | None = None
    modules_to_not_convert: tuple[str, ...] | None = None
    ignored_layers: tuple[str, ...] | None = None
    quantized_layers: dict[str, dict[str, Any]] | None = None
    config_groups: dict[str, _Group] | None = None


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Weights that are quantised alike."""

    weights: dict[str, Any] | None = None
    targets: tuple[str, ...] | None = None


def read_quantization(values: Mapping[str, Any], where: str, *, expert_dtype: str | None = None) -> Quantization:
    """What a ``quantization_config``, or the ``quantization`` of an ``hf_quant_config.json``, says.

    ``expert_dtype`` is the model's own word on its experts, as DeepSeek-V4 gives it.

    Raises:
        InputError: a method or a format that is not known, by its name, or a field of another type.
    """
    checked(values, _Recipe, where, others=True)
    method = values.get("quant_method", "modelopt" if "quant_algo" in values else None)
    if str(method).startswith("modelopt"):
        method = "modelopt"
    try:
        read = _known(_METHODS, method, f"{where}: quant_method")(values, where)
    except re.error as error:
        raise InputError(f"{where}: a pattern of modules is no regular expression ({error})") from None
    experts = values.get("expert_dtype", expert_dtype)
    if method != "fp8" or experts is None:
        return read
    return replace(read, experts=read.experts or _known(_DEEPSEEK_EXPERTS, experts, f"{where}: expert_dtype"))


def _fp8(values: Mapping[str, Any], where: str) -> Quantization:
    block = values.get("weight_block_size")
    linear = _known(_FP8_BLOCKS, tuple(block) if block else None, f"{where}: weight_block_size")
    recipe = values.get("moe_quant_algo")
    if recipe is None:
        return Quantization(linear, ignored=_ignored(values), kv=_kv(values, where))
    # Experts quantised once more; what that recipe leaves out stays as the first one has it.
    return Quantization(linear, experts=_known(_MODELOPT, recipe, f"{where}: moe_quant_algo"), kv=_kv(values, where))


def _modelopt(values: Mapping[str, Any], where: str) -> Quantization:
    recipe, layers = values.get("quant_algo"), values.get("quantized_layers")
    if layers:
        named = {
            module: _known(_MODELOPT, layer.get("quant_algo"), f"{where}: {module}") for module, layer in layers.items()
        }
        return Quantization(named=named, kv=_kv(values, where))
    if recipe == "MIXED_PRECISION":
        raise InputError(f"{where}: quant_algo is MIXED_PRECISION, and quantized_layers is missing")
    linear = None if recipe is None else _known(_MODELOPT, recipe, f"{where}: quant_algo")
    return Quantization(linear, ignored=_ignored(values), kv=_kv(values, where))


def _compressed_tensors(values: Mapping[str, Any], where: str) -> Quantization:
    linear, named = None, {}
    for name, group in (values.get("config_groups") or {}).items():
        weights = group.get("weights")
        if not weights:
            continue
        dtype = _compressed_format(weights, f"{where}: config_groups: {name}: weights")
        for target in group.get("targets") or _CLASSES:
            if target in _CLASSES:
                linear = dtype
            else:
                named[target] = dtype
    return Quantization(linear, named=named, ignored=_ignored(values), kv=_kv(values, where))


def _compressed_format(weights: Mapping[str, Any], where: str) -> str:
    if weights.get("strategy") == "block":
        block = weights.get("block_structure")
        return _known(_FP8_BLOCKS, tuple(block) if block else None, f"{where}: block_structure")
    return _known(_COMPRESSED, _number(weights.get("type", "int"), weights.get("num_bits"), weights), where)


def _number(kind: str, bits: object, weights: Mapping[str, Any]) -> str:
    """The key of such weights in `_COMPRESSED`."""
    group = weights.get("group_size", weights.get("q_group_size"))
    return f"{kind}{bits}" if group in (None, 0, -1) or (bits == 8 and kind == "int") else f"{kind}{bits}-g{group}"


def _integers(values: Mapping[str, Any], where: str) -> Quantization:
    """AWQ's and GPTQ's: integers with a scale for each group."""
    bits = values.get("bits", values.get("w_bit"))
    if bits is None:
        raise InputError(f"{where}: bits is missing")
    return Quantization(_known(_COMPRESSED, _number("int", bits, values), f"{where}: bits"), ignored=_ignored(values))


def _mxfp4(values: Mapping[str, Any], where: str) -> Quantization:
    return Quantization("mxfp4", ignored=_ignored(values))


_METHODS: Mapping[str, Callable[[Mapping[str, Any], str], Quantization]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "modelopt": _modelopt,
    "compressed-tensors": _compressed_tensors,
    "mxfp4": _mxfp4,
    "awq": _integers,
    "gptq": _integers,
}


def _ignored(values: Mapping[str, Any]) -> Modules:
    return Modules((name for key in _IGNORED for name in values.get(key) or ()), abbreviated=True)


def _kv(values: Mapping[str, Any], where: str) -> str | None:
    """The KV cache's format, as vLLM takes it from the checkpoint (`get_kv_cache_quant_algo_string`, 0.32)."""
    scheme = values.get("kv_cache_scheme") or values.get("kv_cache_quant_algo")
    if not scheme:
        return None
    if isinstance(scheme, Mapping):
        scheme = "FP8" if (scheme.get("type"), scheme.get("num_bits")) == ("float", 8) else dict(scheme)
    return _known(_KV, scheme if isinstance(scheme, str) else str(scheme), f"{where}: kv_cache_scheme")


Known = TypeVar("Known")


def _known(table: Mapping[Any, Known], key: object, what: str) -> Known:
    if not isinstance(key, Hashable) or key not in table:
        raise InputError(f"{what} is {key!r}, accepted are {', '.join(map(str, table))}")
    return table[key]
