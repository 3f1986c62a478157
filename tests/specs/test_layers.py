"""A model is groups of layers: sizes of each kind by hand, and sums over kinds."""

from dataclasses import replace
from typing import Any

import pytest

from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery, VariedQuery
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.gpu import GPUS
from l4sim.specs.layers import LayerGroup
from l4sim.specs.matrix import Absent
from l4sim.specs.memory import check_tensor_parallel, kv_blocks, non_kv_bytes
from l4sim.specs.mlp import DenseMLP, Experts
from l4sim.specs.model import Model, dense_model, load_model, uniform_layers, with_kv_dtype, with_layers
from tests.mixed_model import MIXED, NARROW, WIDE, of_layers

H200 = GPUS["h200-sxm"]


def test_grouped_query_attention_by_hand() -> None:
    attention = GroupedQuery(heads=8, kv_heads=2, head_dim=64)
    # QKV of 8 + 2 + 2 heads, output of 8.
    assert attention.products(300) == ((768, 300), (300, 512))
    assert attention.kv_elements == 2 * 2 * 64
    # Rotary embedding reads and writes 10 heads, the cache write 2 x 2.
    assert attention.moved_elements == 2 * 10 * 64 + 2 * 4 * 64


def test_a_gated_mlp_by_hand() -> None:
    mlp = DenseMLP(500)
    assert mlp.products(300) == ((1000, 300), (300, 500))
    assert mlp.activation_elements == 1500


def test_a_rank_has_its_share_and_at_least_one_kv_head() -> None:
    assert GroupedQuery(8, 2, 64).of_rank(2) == GroupedQuery(4, 1, 64)
    assert GroupedQuery(8, 2, 64).of_rank(4) == GroupedQuery(2, 1, 64)
    assert DenseMLP(500).of_rank(4) == DenseMLP(125)
    assert WIDE.of_rank(2) == LayerGroup(4, GroupedQuery(16, 4, 128), DenseMLP(7168))


def test_parameters_and_weights_are_sums_over_groups() -> None:
    # Attention 2 x (heads + KV heads) x 128 x 4,096, MLP 3 x 4,096 x its width, embedding and head 32,000 x 4,096 each.
    wide, narrow = 4096 * (2 * 40 * 128 + 3 * 14_336), 4096 * (2 * 18 * 128 + 3 * 8_192)
    assert MIXED.layers == 6
    assert MIXED.parameters == 4 * wide + 2 * narrow + 2 * 32_000 * 4096
    assert MIXED.weight_bytes == 2 * MIXED.parameters


def test_kv_bytes_are_a_sum_over_groups() -> None:
    assert MIXED.kv_bytes_per_token == (4 * 8 + 2 * 2) * 2 * 128 * 2


def test_a_block_holds_all_layers() -> None:
    for ranks in (1, 2):
        free = 0.9 * H200.memory_bytes - MIXED.weight_bytes / ranks - non_kv_bytes(MIXED, tensor_parallel=ranks)
        block_bytes = 16 * MIXED.kv_bytes_per_token // ranks
        assert kv_blocks(MIXED, H200, ranks) == free // block_bytes - 1


def test_replicated_kv_heads_count_in_the_groups_that_have_few() -> None:
    # At 4 ranks, 8 KV heads leave 2 per rank and 2 leave 1, which two ranks share.
    free = 0.9 * H200.memory_bytes - MIXED.weight_bytes / 4 - non_kv_bytes(MIXED, tensor_parallel=4)
    assert kv_blocks(MIXED, H200, 4) == free // (16 * (4 * 2 + 2 * 1) * 2 * 128 * 2) - 1


def test_activations_are_those_of_the_widest_layer() -> None:
    assert non_kv_bytes(MIXED) == non_kv_bytes(of_layers(WIDE, 1)) > non_kv_bytes(of_layers(NARROW, 1))


def test_every_group_must_split_evenly() -> None:
    check_tensor_parallel(MIXED, 8)
    with pytest.raises(InputError, match="mixed: tensor parallel 32 does not divide 16 heads"):
        check_tensor_parallel(MIXED, 32)
    odd = replace(MIXED, groups=(WIDE, replace(NARROW, mlp=DenseMLP(8_191))))
    with pytest.raises(InputError, match="mixed: tensor parallel 2 does not divide intermediate size 8191"):
        check_tensor_parallel(odd, 2)
    with pytest.raises(InputError, match="mixed: tensor parallel is 0"):
        check_tensor_parallel(MIXED, 0)


def test_what_knows_one_kind_of_layer_refuses_a_model_of_two() -> None:
    assert uniform_layers(load_model("tiny")).count == 2
    with pytest.raises(InputError, match=r"mixed: 2 groups of layers \(4, 2\), accepted is one: layers all alike"):
        uniform_layers(MIXED)
    with pytest.raises(InputError, match="mixed: 2 groups"):
        with_layers(MIXED, 1)


def test_a_model_can_be_cut_to_fewer_layers() -> None:
    cut = with_layers(load_model("llama-3.1-8b"), 4)
    assert (cut.layers, cut.name, cut.hidden) == (4, "llama-3.1-8b", 4096)


def test_a_model_without_layers_or_of_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="none: no groups of layers"):
        Model("none", hidden=1, vocab=1, max_model_len=1, groups=())
    with pytest.raises(InputError, match="no number format 'int3'"):
        replace(MIXED, dtype="int3")


def test_a_dense_model_is_one_group_in_one_format() -> None:
    sizes = {"hidden": 32, "intermediate": 48, "heads": 4, "kv_heads": 2, "head_dim": 8, "vocab": 9}
    (group,) = dense_model("small", layers=3, max_model_len=64, dtype="float16", **sizes).groups
    assert (group.count, group.attention, group.mlp) == (3, GroupedQuery(4, 2, 8), DenseMLP(48))
    assert {group.dtypes.weights, group.dtypes.kv, group.dtypes.activations} == {"float16"}


def test_weights_are_told_by_format() -> None:
    dtypes = Dtypes(kv="fp8", parts=(("down", "mxfp4"), ("up", "mxfp4")))
    mixed = replace(WIDE, dtypes=dtypes)
    mlps = 4 * 3 * 14_336 * 4096
    assert mixed.weight_bytes_by_dtype(4096) == {
        "bfloat16": 2 * (WIDE.parameters(4096) - mlps),
        "mxfp4": mlps // 2 + mlps // 32,
    }
    assert mixed.kv_bytes_per_token == WIDE.kv_bytes_per_token // 2
    model = replace(MIXED, groups=(mixed,), head_dtype="nvfp4")
    ends = 32_000 * 4096
    assert model.weight_bytes == mixed.weight_bytes(4096) + 2 * ends + ends // 2 + ends // 16


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attention": VariedQuery(32, 8, 128, 128, window_tokens=9)}, "sliding-window attention"),
        ({"attention": Absent()}, "layers without attention"),
        ({"mlp": Experts(8, 2, 100)}, "experts"),
        ({"mlp": Absent()}, "layers without MLP"),
        ({"dtypes": Dtypes(parts=(("up", "fp8"),))}, "weights in fp8"),
        ({"dtypes": Dtypes(kv="fp8")}, "KV in fp8"),
    ],
)
def test_layers_that_are_not_dense_are_told_by_what_makes_them_others(changes: dict[str, Any], named: str) -> None:
    group = replace(WIDE, **changes)
    assert (group.beyond_dense, replace(MIXED, groups=(WIDE, group)).beyond_dense) == (named, named)
    with pytest.raises(InputError, match=f"{named}: accepted are layers of full grouped-query attention"):
        group.products(4096)
    with pytest.raises(InputError, match=f"mixed: {named}: accepted are"):
        uniform_layers(replace(MIXED, groups=(group,)))


def test_dense_layers_are_what_they_were() -> None:
    dense = WIDE.dense()
    assert (dense.count, dense.attention, dense.mlp, dense.dtypes) == (4, WIDE.attention, WIDE.mlp, WIDE.dtypes)
    assert (WIDE.beyond_dense, MIXED.beyond_dense) == (None, None)


def test_kv_can_be_put_in_another_format() -> None:
    assert with_kv_dtype(MIXED, "fp8").kv_bytes_per_token == MIXED.kv_bytes_per_token // 2
    assert with_kv_dtype(MIXED, "fp8").weight_bytes == MIXED.weight_bytes
    with pytest.raises(InputError, match="no number format 'fp7'"):
        with_kv_dtype(MIXED, "fp7")
