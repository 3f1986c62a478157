"""Groups of layers as vLLM forms them: how many, tokens and bytes of a block, blocks of a sequence."""

import pytest

from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery, Indexer, Latent, VariedQuery
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.kv_groups import KVGroup, KVLayout, kv_layout
from l4sim.specs.layers import Attention, LayerGroup
from l4sim.specs.matrix import Absent
from l4sim.specs.mlp import DenseMLP
from l4sim.specs.recurrent import GatedDeltaNet, Mamba

FULL = GroupedQuery(32, 8, 128)
"""4,096 bytes a token."""


def window(tokens: int, kv_heads: int = 8, *, chunked: bool = False) -> VariedQuery:
    return VariedQuery(32, kv_heads, 128, 128, window_tokens=tokens, chunked=chunked)


def layout(*layers: tuple[int, Attention], kv: str = "bfloat16", **options: int | bool) -> KVLayout:
    groups = [LayerGroup(count, attention, DenseMLP(64), Dtypes(kv=kv)) for count, attention in layers]
    given = {"ranks": 1, "block_tokens": 16, "max_model_len": 10_000, "prefix_caching": True, **options}
    return kv_layout("it", groups, **given)


def test_layers_that_keep_every_token_have_one_group_which_goes_unsaid() -> None:
    assert layout((30, FULL), (2, GroupedQuery(32, 16, 128))) == KVLayout(16, 16 * (30 * 4096 + 2 * 8192))
    assert layout((4, Absent()), (4, FULL)) == KVLayout(16, 16 * 4 * 4096)


def test_as_many_windows_as_full_layers_make_a_group_each() -> None:
    """gpt-oss: a block holds 16 tokens of one kind's layers."""
    assert layout((18, window(128)), (18, FULL)) == KVLayout(
        16, 18 * 16 * 4096, (KVGroup("window", 16, 128), KVGroup("full", 16))
    )


def test_several_windows_to_one_full_layer_make_several_groups() -> None:
    """Gemma 3 of 62 layers: the last of six groups of windows has 2 layers, and blocks as large as the others'."""
    found = layout((52, window(1024)), (10, FULL))
    assert found.groups == (KVGroup("window", 16, 1024, count=6), KVGroup("full", 16))
    assert found.block_bytes == 10 * 16 * 4096


def test_numbers_that_are_near_one_another_are_filled_up() -> None:
    assert layout((12, window(128)), (13, FULL)).block_bytes == 13 * 16 * 4096


def test_the_block_of_layers_that_keep_fewer_bytes_a_token_holds_more_tokens() -> None:
    """MiMo: its full layers have half the KV heads of its windows."""
    found = layout((9, GroupedQuery(32, 4, 128)), (39, window(128)))
    assert found == KVLayout(16, 9 * 16 * 4096, (KVGroup("full", 32), KVGroup("window", 16, 128, count=5)))


def test_pages_that_do_not_divide_one_another_are_padded() -> None:
    found = layout((1, GroupedQuery(24, 3, 128)), (1, window(128, kv_heads=4)))
    assert [group.block_tokens for group in found.groups] == [16, 16]
    assert found.block_bytes == 16 * 4 * 512


def test_layers_that_all_have_one_window_make_one_group() -> None:
    assert layout((32, window(4096))) == KVLayout(16, 32 * 16 * 4096, (KVGroup("window", 16, 4096),))


def test_chunks_are_told_from_windows() -> None:
    assert layout((3, window(64, chunked=True)), (1, FULL)).groups[0] == KVGroup("chunk", 16, 64, count=3)


def test_a_block_is_as_long_as_a_state_takes_bytes() -> None:
    """Qwen3.5-35B-A3B: 2,146,304 bytes of state in blocks of 2,048 bytes a token, rounded up to 16 tokens."""
    net = GatedDeltaNet(16, 32, 128, 128, 4, "float32")
    found = layout((30, net), (10, GroupedQuery(16, 2, 256)))
    assert found == KVLayout(1056, 10 * 1056 * 2048, (KVGroup("state", 1056, count=3), KVGroup("full", 1056)))
    # Without prefix caching one block has the state of any sequence, and is as large.
    without = layout((30, net), (10, GroupedQuery(16, 2, 256)), prefix_caching=False)
    assert without.groups == (KVGroup("state", 10_560, count=3), KVGroup("full", 1056))
    assert without.block_bytes == found.block_bytes


def test_two_ranks_have_half_the_state_and_half_the_keys() -> None:
    net = GatedDeltaNet(16, 32, 128, 128, 4, "float32")
    assert layout((30, net), (10, GroupedQuery(16, 2, 256)), ranks=2).block_tokens == 1056


def test_keys_in_eight_bits_make_blocks_beside_states_longer() -> None:
    mixer = Mamba(64, 64, 8, 128, 4)
    short, long = (layout((4, mixer), (1, FULL), kv=kv).block_tokens for kv in ("bfloat16", "fp8"))
    assert long == pytest.approx(2 * short, abs=16)


def test_mamba_exports_states_from_within_an_iteration() -> None:
    mixer = Mamba(64, 64, 8, 128, 4)
    (states, _) = layout((4, mixer), (1, FULL)).groups
    assert (states.exports, states.count) == (True, 4)
    size = states.block_tokens
    # That of the last full block before the prompt's end, if it is not the first.
    assert [states.exported(0, end, end) for end in (size, size + 1, 2 * size + 1)] == [0, 1, 1]
    assert states.exported(0, 2 * size, 5 * size) == 0
    assert not layout((4, mixer), (1, FULL), prefix_caching=False).groups[0].exports


def test_latent_attention_has_blocks_of_64_tokens() -> None:
    assert layout((61, Latent(128, 1536, 512, 128, 64, 128))) == KVLayout(64, 61 * 64 * 1152)


def test_entries_that_stand_for_several_tokens_are_refused_by_name() -> None:
    pooled = Latent(64, None, 448, 128, 64, 128, Indexer(32, 128, pool_tokens=4))
    with pytest.raises(InputError, match="it: sparse latent attention keeps entries that stand for several tokens"):
        layout((1, pooled))
    with pytest.raises(InputError, match="it: no layer keeps anything"):
        layout((1, Absent()))


def test_blocks_of_a_sequence_stop_growing_with_its_window() -> None:
    found = layout((18, window(128)), (18, FULL))
    # The window's oldest token, if it is the 15th of its block, has a ninth block begun.
    assert [found.held_blocks(tokens) for tokens in (16, 128, 1600)] == [2, 16, 8 + 100]
    # While 2,048 tokens are under way, what these look at stays.
    assert found.most_blocks(10_000, 2048) == -(-(127 + 2048) // 16) + 1 + 625


def test_a_group_of_impossible_sizes_is_refused() -> None:
    with pytest.raises(InputError, match="whole numbers of at least 1"):
        KVGroup("full", 0)
    with pytest.raises(InputError, match="a window or chunk has window_tokens, and nothing else has"):
        KVGroup("full", 16, 128)
