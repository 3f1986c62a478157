"""Quantised checkpoints: which weights are in which format, by every method's own way to say it."""

from __future__ import annotations

from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.specs.quantization import MODULES, Modules, read_quantization

QKV, UP, EXPERTS = {"qkv": MODULES["qkv"]}, {"up": MODULES["up"]}, {"expert_up": MODULES["expert_up"]}
LAYER = {**QKV, **UP, **EXPERTS}


@pytest.mark.parametrize(
    ("values", "linear"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block128"),
        ({"quant_method": "fbgemm_fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4-g128"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8"),
        ({"quant_algo": "FP8"}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": None}, None),
    ],
)
def test_each_methods_format(values: dict[str, Any], linear: str | None) -> None:
    read = read_quantization(values, "q")
    assert read.formats(0, LAYER) == (dict.fromkeys(LAYER, linear) if linear else {})
    assert read.head is None


@pytest.mark.parametrize(
    ("weights", "linear"),
    [
        ({"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}, "int4-g32"),
        ({"num_bits": 4, "type": "float", "group_size": 32, "strategy": "group"}, "mxfp4"),
        ({"num_bits": 4, "type": "float", "group_size": 16, "strategy": "tensor_group"}, "nvfp4"),
        ({"num_bits": 8, "type": "float", "group_size": None, "strategy": "channel"}, "fp8"),
        ({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}, "fp8-block128"),
        ({"num_bits": 8, "type": "int", "group_size": -1}, "int8"),
    ],
)
def test_compressed_tensors_tells_formats_by_numbers(weights: dict[str, Any], linear: str) -> None:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    read = read_quantization({"quant_method": "compressed-tensors", "config_groups": groups}, "q")
    assert read.formats(3, QKV) == {"qkv": linear}


@pytest.mark.parametrize(
    "ignored",
    [
        "model.layers.3.self_attn",
        "model.layers.3.self_attn.q_proj",
        "model.layers.3.self_attn*",
        "model.layers.*.self_attn",
        "language_model.model.layers.3.self_attn*",
        "backbone.layers.3.mixer.q_proj",
        "re:.*self_attn.*",
        "self_attn",
        "*.attn.*",
    ],
)
def test_what_is_ignored_keeps_its_format(ignored: str) -> None:
    read = read_quantization({"quant_algo": "NVFP4", "exclude_modules": ["lm_head", ignored]}, "q")
    assert read.formats(3, LAYER) == {"up": "nvfp4", "expert_up": "nvfp4"}


@pytest.mark.parametrize("other", ["model.layers.33.self_attn", "model.layers.3.self_attn.o_proj", "attn_mha", "q"])
def test_what_is_not_meant_is_quantised(other: str) -> None:
    assert read_quantization({"quant_algo": "FP8", "exclude_modules": [other]}, "q").formats(3, QKV) == {"qkv": "fp8"}


def test_layers_of_a_mixed_recipe_are_told_one_by_one() -> None:
    layers = {
        "model.language_model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"},
        "model.language_model.layers.0.mlp.experts": {"quant_algo": "W4A16_NVFP4", "group_size": 16},
        "lm_head": {"quant_algo": "W4A16_NVFP4"},
    }
    read = read_quantization({"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}, "q")
    assert read.formats(0, LAYER) == {"qkv": "fp8", "expert_up": "nvfp4"}
    assert read.formats(1, LAYER) == {}
    assert read.head == "nvfp4"


def test_targets_may_be_names() -> None:
    groups = {
        "group_0": {"targets": ["re:.*experts.*"], "weights": {"num_bits": 4, "type": "float", "group_size": 16}},
        "group_1": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}},
    }
    read = read_quantization({"quant_method": "compressed-tensors", "config_groups": groups}, "q")
    assert read.formats(0, LAYER) == {"qkv": "fp8", "up": "fp8", "expert_up": "nvfp4"}


@pytest.mark.parametrize(("told", "experts"), [("fp4", "mxfp4"), ("fp8", "fp8-block128"), (None, "fp8-block128")])
def test_deepseeks_experts_have_a_format_of_their_own(told: str | None, experts: str) -> None:
    values = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    read = read_quantization(values, "q", expert_dtype=told)
    assert read.formats(0, LAYER) == {"qkv": "fp8-block128", "up": "fp8-block128", "expert_up": experts}


def test_experts_quantised_once_more_leave_the_rest_as_it_was() -> None:
    values = {
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
        "moe_quant_algo": "NVFP4",
        "quant_algo": "MIXED_PRECISION",
        "ignore": ["*.attn.*"],
    }
    read = read_quantization(values, "q", expert_dtype="fp4")
    assert read.formats(0, LAYER) == {"qkv": "fp8-block128", "up": "fp8-block128", "expert_up": "nvfp4"}


@pytest.mark.parametrize(
    ("told", "kv"),
    [
        ({"kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"kv_cache_scheme": "FP8"}, "fp8"),
        ({"kv_cache_scheme": {"type": "float", "num_bits": 8, "dynamic": False}}, "fp8"),
        ({"kv_cache_quant_algo": None}, None),
        ({}, None),
    ],
)
def test_the_kv_caches_format_is_the_checkpoints(told: dict[str, Any], kv: str | None) -> None:
    assert read_quantization({"quant_algo": "FP8", **told}, "q").kv == kv


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "q: quant_method is None, accepted are fp8"),
        ({"quant_method": "bitsandbytes"}, "q: quant_method is 'bitsandbytes'"),
        ({"quant_algo": "INT3"}, "q: quant_algo is 'INT3'"),
        ({"quant_algo": "MIXED_PRECISION"}, "quantized_layers is missing"),
        ({"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a.b": {"quant_algo": "X"}}}, "q: a.b is 'X'"),
        ({"quant_method": "fp8", "weight_block_size": [7, 7]}, "q: weight_block_size is (7, 7)"),
        ({"quant_method": "fp8", "expert_dtype": "fp2"}, "q: expert_dtype is 'fp2'"),
        ({"quant_method": "fp8", "expert_dtype": ["fp4"]}, "q: expert_dtype is ['fp4']"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "q: bits is 'int3-g128'"),
        ({"quant_method": "awq"}, "q: bits is missing"),
        ({"quant_algo": "FP8", "ignore": ["re:("]}, "q: a pattern of modules is no regular expression"),
        ({"quant_algo": "FP8", "ignore": "lm_head"}, "q: ignore is 'lm_head'"),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "INT8"}, "q: kv_cache_scheme is 'INT8'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_quantization(values, "q")
    assert named in str(refusal.value)


def test_a_pattern_is_found_for_a_module_and_what_is_in_it() -> None:
    modules = Modules(["a.b", "c.*.d", "re:e(f|g)"])
    found = [modules.find(name) for name in ("a.b", "a.b.x", "a.bx", "x.a.b", "c.1.d", "c.1.dx", "eg.h", "xeg")]
    assert found == ["a.b", "a.b", None, None, "c.*.d", None, "re:e(f|g)", None]


def test_an_abbreviated_name_is_the_last_parts_of_one() -> None:
    modules = Modules(["b", "c.d"], abbreviated=True)
    assert [modules.find(name) for name in ("a.b", "a.b.x", "ab", "a.c.d", "a.d")] == ["b", "b", None, "c.d", None]
