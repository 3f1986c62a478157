"""Models: published shapes are right, and a config.json says what it is not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.specs.model import list_models, load_model, uniform_layers

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_config(**changes: Any) -> str:
        config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not ...}
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        return str(path)

    return write_config


@pytest.mark.parametrize(
    ("name", "billions", "kv_bytes_per_token"),
    [
        # Parameters as the model cards give them; KV bytes = 2 x layers x 8 KV heads x 128 x 2 bytes.
        ("llama-3.2-3b", 3.21, 2 * 28 * 8 * 128 * 2),
        ("llama-3.1-8b", 8.03, 2 * 32 * 8 * 128 * 2),
        ("qwen2.5-14b-1m", 14.77, 2 * 48 * 8 * 128 * 2),
        ("qwen3-32b", 32.76, 2 * 64 * 8 * 128 * 2),
        ("llama-3.1-70b", 70.55, 2 * 80 * 8 * 128 * 2),
    ],
)
def test_bundled_models_have_the_published_size(name: str, billions: float, kv_bytes_per_token: int) -> None:
    model = load_model(name)
    assert model.parameters / 1e9 == pytest.approx(billions, abs=0.01)
    assert model.kv_bytes_per_token == kv_bytes_per_token


def test_the_longest_contexts_are_the_models_own() -> None:
    lengths = {name: load_model(name).max_model_len for name in list_models()}
    assert lengths["llama-3.1-8b"] == 131_072
    assert lengths["qwen2.5-14b-1m"] == 1_010_000
    assert lengths["qwen3-32b"] == 40_960


def test_qwen3_has_more_attention_width_than_hidden_size() -> None:
    model = load_model("qwen3-32b")
    attention = uniform_layers(model).attention
    assert (attention.heads * attention.head_dim, model.hidden) == (8192, 5120)


def test_a_config_is_found_by_file_or_folder_and_named_after_its_folder(write: Any) -> None:
    path = Path(write())
    assert load_model(str(path)) == load_model(str(path.parent))
    assert load_model(str(path)).name == path.parent.name


def test_head_dim_and_kv_heads_have_the_defaults_of_hugging_face(write: Any) -> None:
    attention = uniform_layers(load_model(write(num_key_value_heads=...))).attention
    assert (attention.kv_heads, attention.head_dim) == (32, 128)


def test_yarn_stretches_the_original_length(write: Any) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert load_model(write(max_position_embeddings=40960, rope_scaling=scaling)).max_model_len == 131_072


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"num_key_value_heads": 5}, "num_key_value_heads 5 does not divide"),
        ({"num_attention_heads": 24}, "head_dim is missing"),
        ({"head_dim": 0}, "head_dim is 0, accepted is a whole number >= 1"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"num_local_experts": 8}, "num_local_experts means mixture of experts"),
        ({"kv_lora_rank": 512}, "kv_lora_rank means multi-head latent attention"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder means an encoder-decoder"),
        ({"quantization_config": {"quant_method": "aqlm"}}, "quantization_config: quant_method is 'aqlm'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config: bits is missing"),
        ({"model_type": "bert"}, "model_type is 'bert'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures names LlamaForSequenceClassification"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"torch_dtype": "float32"}, "torch_dtype is 'float32'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_type is 'longrope'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling: factor is missing"),
        ({"rope_scaling": {"type": "yarn", "factor": 0}}, "rope_scaling: factor is 0, accepted is a number above 0"),
    ],
)
def test_what_is_not_modelled_is_refused_by_file_and_field(write: Any, changes: dict[str, Any], named: str) -> None:
    path = write(**changes)
    with pytest.raises(InputError) as refusal:
        load_model(path)
    assert str(refusal.value).startswith(path)
    assert named in str(refusal.value)


def test_a_window_that_is_switched_off_is_no_window(write: Any) -> None:
    assert load_model(write(model_type="qwen2", sliding_window=4096, use_sliding_window=False)).layers == 32


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no model 'gpt-5'.*llama-3.1-8b"):
        load_model("gpt-5")


def test_fields_that_are_not_read_may_hold_anything(write: Any) -> None:
    assert load_model(write(time_step_limit=[0.0, math.inf], auto_map={"AutoConfig": "x"})).layers == 32


def test_the_number_format_is_the_files_own_or_bf16(write: Any) -> None:
    assert [load_model(write(**given)).dtype for given in ({}, {"torch_dtype": "float16"}, {"dtype": "float16"})] == [
        "bfloat16",
        "float16",
        "float16",
    ]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        load_model(str(path))
