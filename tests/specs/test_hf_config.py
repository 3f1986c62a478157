"""``config.json``: one name for each field, the text model of several, how far contexts reach, what lies beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.specs.model import Model, load_model

DENSE: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_hidden_layers": 4,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 1000,
}
Read = Callable[..., Model]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_config(fields: dict[str, Any], beside: dict[str, Any] | None = None) -> Model:
        (tmp_path / "config.json").write_text(json.dumps(fields))
        if beside is not None:
            (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
        return load_model(str(tmp_path))

    return read_config


def test_the_text_model_of_several_is_read_with_what_holds_for_all(read: Read) -> None:
    text = {name: value for name, value in DENSE.items() if name != "model_type"}
    several = {
        "model_type": "qwen3_vl",
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "text_config": text,
        "vision_config": {"depth": 24},
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }
    model = read(several)
    assert (model.tie_embeddings, model.dtype, model.left_out) == (True, "float16", ("vision_config",))
    assert model.groups[0].attention == read(DENSE).groups[0].attention
    # Its own word goes before that for all.
    assert not read({**several, "text_config": {**text, "tie_word_embeddings": False}}).tie_embeddings


def test_errors_in_a_text_model_say_where(read: Read) -> None:
    with pytest.raises(InputError, match=r"config\.json: text_config: hidden_size is missing"):
        read({"model_type": "qwen3_vl", "text_config": {"num_hidden_layers": 3}})
    with pytest.raises(InputError, match="text_config is not an object"):
        read({**DENSE, "text_config": 3})


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    ("scaling", "length"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}, 131_072),
        ({"rope_type": "default", "rope_theta": 1e6}, 40_960),
        ({"rope_theta": 1e6}, 40_960),
        ({"type": "mrope", "mrope_section": [1, 2]}, 40_960),
        ({"full_attention": {"rope_type": "proportional"}, "sliding_attention": {"rope_type": "default"}}, 40_960),
    ],
)
def test_contexts_reach_as_far_by_either_name(read: Read, name: str, scaling: dict[str, Any], length: int) -> None:
    assert read({**DENSE, name: scaling}).max_model_len == length


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_linear_scaling_is_refused_by_either_name(read: Read, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: rope_type is 'linear'"):
        read({**DENSE, name: {"rope_type": "linear", "factor": 4.0}})


def test_the_fields_own_name_of_the_format_is_told(read: Read) -> None:
    with pytest.raises(InputError, match="dtype is 'float32', accepted are bfloat16 and float16"):
        read({**DENSE, "dtype": "float32"})


def test_the_quantisation_may_lie_beside(read: Read) -> None:
    recipe = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    model = read(DENSE, recipe)
    assert set(model.weight_bytes_by_dtype) == {"bfloat16", "fp8"}
    assert model.groups[0].dtypes.kv == "fp8"


def test_its_own_word_on_quantisation_goes_before_what_lies_beside(read: Read) -> None:
    own = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    model = read({**DENSE, "quantization_config": own}, {"quantization": {"quant_algo": "NVFP4"}})
    assert set(model.weight_bytes_by_dtype) == {"bfloat16", "fp8-block128"}


def test_layers_quantised_unlike_are_groups_of_their_own(read: Read) -> None:
    own = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.self_attn", "model.layers.3.mlp"]}
    parts = [dict(group.dtypes.parts) for group in read({**DENSE, "quantization_config": own}).groups]
    assert parts == [
        {"up": "fp8", "down": "fp8"},
        {"qkv": "fp8", "output": "fp8", "up": "fp8", "down": "fp8"},
        {"qkv": "fp8", "output": "fp8"},
    ]


def test_an_unknown_kind_of_model_is_told_with_what_is_new_about_it(read: Read) -> None:
    with pytest.raises(InputError, match=r"model_type is 'novel', with memories of n-grams \(Engram\): accepted are"):
        read({**DENSE, "model_type": "novel", "engram_layer_ids": [1]})


def test_qwens_later_layers_may_slide(read: Read) -> None:
    groups = read({**DENSE, "sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 3}).groups
    assert [(group.count, group.attention.kind) for group in groups] == [
        (3, "grouped-query attention"),
        (1, "sliding-window attention"),
    ]


def test_mistrals_window_is_in_all_layers(read: Read) -> None:
    (group,) = read({**DENSE, "model_type": "mistral", "sliding_window": 4096}).groups
    assert group.attention.kind == "sliding-window attention"
