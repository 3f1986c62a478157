"""Every family's layers: parameters and KV of published models, and the fields that change them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery, Indexer, Latent, VariedQuery
from l4sim.specs.matrix import Absent
from l4sim.specs.mlp import DenseMLP, Experts, UngatedMLP
from l4sim.specs.model import Model, load_model
from l4sim.specs.recurrent import GatedDeltaNet, KimiDelta, Mamba
from tests.specs.families.published import PUBLISHED

Read = Callable[..., Model]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_published(name: str, **changes: Any) -> Model:
        fields = {**PUBLISHED[name].fields, **changes}
        path = tmp_path / "config.json"
        path.write_text(json.dumps({key: value for key, value in fields.items() if value is not ...}))
        return load_model(str(path))

    return read_published


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_transformers_own_modules(read: Read, name: str) -> None:
    assert read(name).parameters == pytest.approx(PUBLISHED[name].parameters, rel=5e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_token_adds_what_was_counted_by_hand(read: Read, name: str) -> None:
    assert read(name).kv_bytes_per_token == PUBLISHED[name].kv_bytes_per_token


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # As the models' cards have them; Meta's and Qwen's round down.
        ("gpt-oss-120b", 5.1),
        ("DeepSeek-R1", 37),
        ("Qwen3-30B-A3B", 3.0),
        ("Mixtral-8x7B", 12.8),
        ("Llama-4-Maverick", 16.1),
        ("Nemotron-3-Super", 12.1),
        ("DeepSeek-V4-Flash", 13.2),
        ("MiMo-V2-Flash", 15),
    ],
)
def test_a_token_passes_some_experts_and_everything_else(read: Read, name: str, billions: float) -> None:
    assert read(name).active_parameters / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "attentions"),
    [
        ("gpt-oss-120b", {VariedQuery: 18, GroupedQuery: 18}),
        ("Gemma-4-26B-A4B", {VariedQuery: 30}),
        ("GLM-5.3-Flash", {KimiDelta: 34, Latent: 11}),
        ("Qwen3.5-397B-A17B", {GatedDeltaNet: 45, VariedQuery: 15}),
        ("Nemotron-3-Super", {Mamba: 40, Absent: 40, GroupedQuery: 8}),
    ],
)
def test_layers_of_each_kind_are_counted(read: Read, name: str, attentions: dict[type, int]) -> None:
    found: dict[type, int] = {}
    for group in read(name).groups:
        found[type(group.attention)] = found.get(type(group.attention), 0) + group.count
    assert found == attentions


def test_a_window_stops_growing(read: Read) -> None:
    model, layer_bytes = read("gpt-oss-120b"), 2 * 8 * 64 * 2
    assert model.kv_bytes(100) == 100 * 36 * layer_bytes
    assert model.kv_bytes(32_768) == (18 * 32_768 + 18 * 128) * layer_bytes


def test_a_window_as_long_as_the_longest_context_is_none(read: Read) -> None:
    assert [group.attention.kind for group in read("gpt-oss-120b", sliding_window=131072).groups] == [
        "grouped-query attention"
    ]


def test_gpt_oss_alternates_where_it_does_not_say(read: Read) -> None:
    assert read("gpt-oss-120b", layer_types=...).groups == read("gpt-oss-120b").groups


def test_states_are_there_from_the_first_token_and_never_grow(read: Read) -> None:
    # 45 layers: 3 inputs of 2 x 16 x 128 + 64 x 128 columns in bf16, and 64 states of 128 x 128 in float32.
    state = 45 * (3 * (2 * 16 * 128 + 64 * 128) * 2 + 64 * 128 * 128 * 4)
    model = read("Qwen3.5-397B-A17B")
    assert model.kv_bytes(0) == state
    assert model.kv_bytes(1000) == state + 1000 * model.kv_bytes_per_token


def test_qwens_interval_is_what_layer_types_spell_out(read: Read) -> None:
    kinds = [*["linear_attention"] * 3, "full_attention"] * 15
    assert read("Qwen3.5-397B-A17B", layer_types=kinds).groups == read("Qwen3.5-397B-A17B").groups


def test_mamba_keeps_its_last_inputs_and_its_states(read: Read) -> None:
    # 3 inputs of 128 x 64 + 2 x 8 x 128 columns in bf16, and 128 x 64 x 128 numbers in float32, in 40 layers.
    assert read("Nemotron-3-Super").kv_bytes(0) == 40 * (3 * (8192 + 2048) * 2 + 128 * 64 * 128 * 4)


def test_both_spellings_of_nemotrons_layers_are_one(read: Read) -> None:
    letters = PUBLISHED["Nemotron-3-Super"].fields["hybrid_override_pattern"]
    kinds = [{"M": "mamba", "E": "moe", "*": "attention"}[letter] for letter in letters]
    spelled = {"hybrid_override_pattern": ..., "num_hidden_layers": ..., "layers_block_type": kinds}
    assert read("Nemotron-3-Super", **spelled).groups == read("Nemotron-3-Super").groups


def test_nemotrons_dense_mlps_have_no_gate(read: Read) -> None:
    model = read("Nemotron-3-Super", hybrid_override_pattern="M-M*", num_hidden_layers=4, num_nextn_predict_layers=0)
    assert [group.mlp for group in model.groups] == [Absent(), UngatedMLP(2688), Absent()]


def test_the_first_layers_may_be_dense(read: Read) -> None:
    dense, mixed = read("DeepSeek-R1").groups
    assert (dense.count, dense.mlp) == (3, DenseMLP(18432))
    assert (mixed.count, mixed.mlp) == (58, Experts(256, 8, 2048, shared=2048))


def test_every_other_layer_may_be_dense(read: Read) -> None:
    counts = {type(group.mlp): 0 for group in read("Llama-4-Maverick").groups}
    for group in read("Llama-4-Maverick").groups:
        counts[type(group.mlp)] += group.count
    assert counts == {DenseMLP: 24, Experts: 24}


def test_qwens_sparse_step_and_dense_layers_are_read(read: Read) -> None:
    dense = read("Qwen3-30B-A3B", decoder_sparse_step=2, mlp_only_layers=[1])
    assert {type(group.mlp): group.count for group in dense.groups} == {DenseMLP: 25, Experts: 23}


def test_llama_4_attends_to_its_chunk_but_in_every_fourth_layer(read: Read) -> None:
    groups = read("Llama-4-Maverick").groups
    assert sum(group.count for group in groups if group.attention.kind == "chunked attention") == 36


def test_an_indexer_makes_latent_attention_sparse_in_the_layers_that_share_it_too(read: Read) -> None:
    kinds = {group.attention for group in read("GLM-5.2").groups}
    assert {attention.kind for attention in kinds} == {"sparse latent attention"}
    assert {attention.indexer for attention in kinds if isinstance(attention, Latent)} == {None, Indexer(32, 128)}


def test_queries_may_be_projected_at_once(read: Read) -> None:
    whole, ranked = read("DeepSeek-R1", q_lora_rank=None), read("DeepSeek-R1")
    assert whole.parameters - ranked.parameters == 61 * (128 * 192 * 7168 - 1536 * (7168 + 128 * 192))


def test_predictors_are_counted_apart(read: Read) -> None:
    with_one, without = read("DeepSeek-R1"), read("DeepSeek-R1", num_nextn_predict_layers=0)
    assert with_one.parameters == without.parameters
    # One more layer with experts, and a projection of two hidden states; 11.5 billion by DeepSeek's README.
    assert with_one.predictor_parameters / 1e9 == pytest.approx(11.5, rel=0.01)
    assert without.predictor_parameters == 0


@pytest.mark.parametrize(
    ("name", "newer"),
    [
        (
            "DeepSeek-V4-Flash",
            {
                "compress_ratios": ...,
                "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128},
                "layer_types": [
                    *["sliding_attention"] * 2,
                    *["compressed_sparse_attention", "heavily_compressed_attention"] * 20,
                    "compressed_sparse_attention",
                ],
                "mlp_layer_types": [*["hash_moe"] * 3, *["moe"] * 40],
            },
        ),
        (
            "GLM-5.3-Flash",
            {
                "linear_attn_config": ...,
                "linear_num_heads": 64,
                "linear_head_dim": 128,
                "linear_conv_kernel_dim": 4,
                "layer_types": [*[*["linear_attention"] * 3, "indexed_attention"] * 11, "linear_attention"],
            },
        ),
        (
            "MiniMax-M3",
            {
                "sparse_attention_config": ...,
                "moe_layer_freq": ...,
                "index_n_heads": 4,
                "index_head_dim": 128,
                "layer_types": [*["full_attention"] * 3, *["minimax_m3_sparse"] * 57],
                "mlp_layer_types": [*["dense"] * 3, *["sparse"] * 57],
            },
        ),
    ],
)
def test_files_of_transformers_5_say_the_same(read: Read, name: str, newer: dict[str, Any]) -> None:
    assert read(name, **newer).groups == read(name).groups


def test_kimi_linear_counts_its_layers_from_one(read: Read) -> None:
    """Kimi-Linear-48B-A3B: 49.13 billion in transformers' own modules."""
    full = [4, 8, 12, 16, 20, 24, 27]
    model = read(
        "DeepSeek-R1",
        model_type="kimi_linear",
        hidden_size=2304,
        intermediate_size=9216,
        moe_intermediate_size=1024,
        num_attention_heads=32,
        num_hidden_layers=27,
        num_nextn_predict_layers=0,
        first_k_dense_replace=1,
        q_lora_rank=None,
        vocab_size=163840,
        linear_attn_config={
            "full_attn_layers": full,
            "kda_layers": sorted({*range(1, 28)} - {*full}),
            "num_heads": 32,
            "head_dim": 128,
            "short_conv_kernel_size": 4,
        },
    )
    assert model.parameters / 1e9 == pytest.approx(49.13, rel=2e-3)
    assert sum(group.count for group in model.groups if isinstance(group.attention, KimiDelta)) == 20


def test_steps_gates_heads_and_experts_are_read(read: Read, tmp_path: Path) -> None:
    """As Step 3.5 Flash has them: other heads in sliding layers, experts listed in a text."""
    fields = {
        "model_type": "step3p5",
        "hidden_size": 4096,
        "intermediate_size": 11264,
        "num_hidden_layers": 4,
        "num_attention_heads": 64,
        "num_attention_groups": 8,
        "head_dim": 128,
        "vocab_size": 128896,
        "max_position_embeddings": 262144,
        "sliding_window": 512,
        "layer_types": ["full_attention", *["sliding_attention"] * 3],
        "moe_num_experts": 288,
        "moe_top_k": 8,
        "moe_intermediate_size": 1280,
        "share_expert_dim": 1280,
        "moe_layers_enum": "2,3",
        "attention_other_setting": {
            "attention_type": "sliding_attention",
            "num_attention_heads": 96,
            "num_attention_groups": 8,
            "head_dim": 128,
        },
    }
    path = tmp_path / "step.json"
    path.write_text(json.dumps(fields))
    full, dense, mixed = load_model(str(path)).groups
    assert full.attention == VariedQuery(64, 8, 128, 128, gate_dim=1)
    assert dense.attention == VariedQuery(96, 8, 128, 128, window_tokens=512, gate_dim=1)
    assert (full.mlp, dense.mlp, dense.count) == (DenseMLP(11264), DenseMLP(11264), 1)
    assert (mixed.mlp, mixed.count) == (Experts(288, 8, 1280, shared=1280), 2)


def test_searched_architectures_may_lack_attention_or_mlp(tmp_path: Path) -> None:
    """DeciLM's rule for widths, as vLLM has it: two thirds of the multiple, rounded up to 256."""
    block = {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 5.25}}
    lean = {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.3125}}
    bare = {"attention": {"n_heads_in_group": 8}, "ffn": {"no_op": True}}
    fields = {
        "model_type": "nemotron-nas",
        "architectures": ["DeciLMForCausalLM"],
        "hidden_size": 8192,
        "num_attention_heads": 64,
        "num_hidden_layers": 3,
        "num_key_value_heads": None,
        "intermediate_size": None,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "block_configs": [block, lean, bare],
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    groups = load_model(str(path)).groups
    assert [group.attention for group in groups] == [GroupedQuery(64, 8, 128), Absent(), GroupedQuery(64, 8, 128)]
    assert [group.mlp for group in groups] == [DenseMLP(28_672), DenseMLP(7168), Absent()]
    fields["block_configs"] = [block, lean, {**bare, "attention": {"replace_with_linear": True}}]
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"block_configs\[2\]: a layer is replaced"):
        load_model(str(path))


@pytest.mark.parametrize(("pattern", "full"), [(None, 2), (3, 4)])
def test_gemma_3_slides_but_in_every_sixth_layer(tmp_path: Path, pattern: int | None, full: int) -> None:
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 13,
        "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window_pattern": pattern,
    }
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": text})
    )
    model = load_model(str(path))
    # What Gemma's files leave out has transformers' defaults; linear scaling is in the longest context already.
    assert (model.vocab, model.tie_embeddings, model.max_model_len) == (262_208, True, 131_072)
    counts = {type(group.attention): group.count for group in model.groups}
    assert counts == {VariedQuery: 13 - full, GroupedQuery: full}


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        (
            "Llama-3.1-70B",
            {"layer_types": ["sliding_attention"] * 80},
            "layer_types names 'sliding_attention', and",
        ),
        ("Llama-3.1-70B", {"num_kv_shared_layers": 4}, "num_kv_shared_layers means layers that share keys and values"),
        ("gpt-oss-120b", {"layer_types": ["full_attention"] * 3}, "layer_types names 3 layers of 36"),
        ("gpt-oss-120b", {"layer_types": ["mamba"] * 36}, "layer_types names 'mamba', accepted are full_attention"),
        ("gpt-oss-120b", {"num_experts_per_tok": 8}, "experts_per_token is 4, and num_experts_per_tok is 8"),
        ("Mixtral-8x7B", {"n_shared_experts": 1}, "n_shared_experts means shared experts"),
        ("DeepSeek-R1", {"index_topk": 2048}, "index_topk, and index_n_heads or index_head_dim is missing"),
        ("DeepSeek-R1", {"moe_intermediate_size": ...}, "moe_intermediate_size is missing"),
        ("DeepSeek-R1", {"compress_ratios": [4] * 61}, "compress_ratios means compressed attention"),
        ("DeepSeek-R1", {"intermediate_size": ...}, "intermediate_size is missing, and layers without experts"),
        ("DeepSeek-V4-Flash", {"compress_ratios": [4]}, "compress_ratios names 1 layers of 43"),
        (
            "DeepSeek-V4-Flash",
            {"compress_ratios": [2] * 43},
            "compress_ratios names '2', accepted are sliding",
        ),
        ("DeepSeek-V4-Flash", {"compress_ratios": ...}, "compress_ratios and layer_types are missing"),
        ("DeepSeek-V4-Flash", {"mlp_layer_types": ["dense"] * 43}, "mlp_layer_types names 'dense', accepted are moe"),
        ("GLM-5.3-Flash", {"layer_types": ...}, "full_attn_layers and kda_layers are not layers 1 to 45"),
        ("GLM-5.3-Flash", {"linear_attn_config": ...}, "linear_attn_config: num_heads is None"),
        ("MiniMax-M3", {"sparse_attention_config": ...}, "sparse_attention_config and layer_types are missing"),
        ("MiniMax-M3", {"moe_layer_freq": ...}, "moe_layer_freq and mlp_layer_types are missing"),
        ("MiniMax-M3", {"sparse_attention_config": {}}, "sparse_attention_config: sparse_attention_freq is missing"),
        ("Qwen3.5-397B-A17B", {"num_experts_per_tok": ...}, "num_experts_per_tok or moe_intermediate_size is missing"),
        ("Nemotron-3-Super", {"hybrid_override_pattern": "MX"}, "the pattern of layers names 'X', accepted are mamba"),
        ("Nemotron-3-Super", {"mamba_ssm_cache_dtype": "int3"}, "no number format 'int3'"),
        ("Nemotron-3-Super", {"num_hidden_layers": 5}, "num_hidden_layers is 5, and the pattern has 88"),
        (
            "Gemma-4-26B-A4B",
            {"hidden_size_per_layer_input": 256},
            "hidden_size_per_layer_input means embeddings",
        ),
        ("Gemma-4-26B-A4B", {"layer_types": ...}, "layer_types is missing"),
        ("gpt-oss-120b", {"layer_types": ..., "sliding_window": ...}, "sliding_window is missing"),
        ("MiMo-V2-Flash", {"sliding_window": ...}, "sliding_window is missing"),
        ("Mixtral-8x7B", {"architectures": 3}, "architectures is 3, accepted is a list, each a text or null"),
        ("Gemma-4-26B-A4B", {"top_k_experts": ...}, "top_k_experts or moe_intermediate_size is missing"),
    ],
)
def test_what_does_not_go_together_is_refused(read: Read, name: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as refusal:
        read(name, **changes)
    assert named in str(refusal.value)
