"""Kinds of softmax attention, by hand: weights, what a sequence keeps, one rank's share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.specs.attention import CompressedLatent, GroupedQuery, Indexer, Latent, VariedQuery
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.matrix import Kept, Matrix

BF16, FP8 = Dtypes(), Dtypes(kv="fp8")
LATENT = Latent(heads=8, query_rank=48, kv_rank=256, nope_dim=32, rope_dim=16, value_dim=24)
SPARSE = replace(LATENT, indexer=Indexer(heads=4, head_dim=128))


def test_full_attention_keeps_keys_and_values_of_every_token() -> None:
    assert GroupedQuery(8, 2, 64).kept(BF16) == (Kept(2 * 2 * 64 * 2),)
    assert GroupedQuery(8, 2, 64).kept(FP8) == (Kept(2 * 2 * 64),)


def test_what_varies_about_grouped_queries() -> None:
    varied = VariedQuery(8, 2, 64, value_dim=48, window_tokens=100, gate_dim=1)
    assert varied.matrices(300) == (
        Matrix("qkv", 8 * 64 + 2 * (64 + 48), 300),
        Matrix("gate", 8, 300),
        Matrix("output", 300, 8 * 48),
    )
    assert varied.kept(BF16) == (Kept(2 * (64 + 48) * 2, window_tokens=100),)


def test_keys_that_are_the_values_have_one_projection_and_are_kept_twice() -> None:
    varied = VariedQuery(8, 2, 64, 64, one_projection=True)
    assert varied.matrices(300)[0] == Matrix("qkv", (8 + 2) * 64, 300)
    assert varied.kept(BF16) == GroupedQuery(8, 2, 64).kept(BF16)


def test_an_index_over_blocks_has_queries_and_one_key() -> None:
    varied = VariedQuery(8, 2, 64, 64, index_heads=4, index_dim=32)
    assert varied.matrices(300)[-1] == Matrix("index", 5 * 32, 300)
    assert varied.kept(FP8) == (Kept(2 * 2 * 64), Kept(32 * 2))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"window_tokens": 5}, "sliding-window attention"),
        ({"window_tokens": 5, "chunked": True}, "chunked attention"),
        ({"gate_dim": 64}, "gated attention"),
        ({"index_heads": 4}, "block-sparse attention"),
        ({"value_dim": 32}, "grouped-query attention of unequal keys and values"),
    ],
)
def test_what_varies_names_it(changes: dict[str, int], kind: str) -> None:
    assert replace(VariedQuery(8, 2, 64, 64), **changes).kind == kind


def test_latent_attention_by_hand() -> None:
    assert LATENT.matrices(300) == (
        Matrix("query_down", 48, 300),
        Matrix("query_up", 8 * (32 + 16), 48),
        Matrix("latent", 256 + 16, 300),
        Matrix("latent_up", 8 * (32 + 24), 256),
        Matrix("output", 300, 8 * 24),
    )
    assert replace(LATENT, query_rank=None).matrices(300)[0] == Matrix("query", 8 * 48, 300)
    assert Matrix("gate", 8 * 24, 300) in replace(LATENT, gated=True).matrices(300)
    assert [kept.entry_bytes for kept in LATENT.kept(BF16)] == [(256 + 16) * 2]
    assert [kept.entry_bytes for kept in LATENT.kept(FP8)] == [256 + 16]


def test_an_indexer_by_hand() -> None:
    assert SPARSE.matrices(300)[-3:] == (
        Matrix("index_query", 4 * 128, 48),
        Matrix("index_key", 128, 300),
        Matrix("index_weights", 4, 300),
    )
    # Its keys are FP8 with a float32 scale; in FP8 the latent has one for 128 elements, and rotary keys in bf16.
    assert [kept.entry_bytes for kept in SPARSE.kept(BF16)] == [272 * 2, 128 + 4]
    assert [kept.entry_bytes for kept in SPARSE.kept(FP8)] == [256 + 2 * 4 + 16 * 2, 128 + 4]


def test_deepseek_v32_keeps_656_bytes_per_token_in_fp8() -> None:
    """vLLM's layout ``fp8_ds_mla``: 512 + 16 + 128 bytes."""
    published = Latent(128, 1536, 512, 128, 64, 128, Indexer(64, 128))
    assert published.kept(FP8)[0].entry_bytes == 656


def test_a_pooled_indexer_keeps_a_key_for_several_tokens() -> None:
    pooled = replace(LATENT, indexer=Indexer(4, 128, pool_tokens=4))
    assert pooled.kept(BF16)[1] == Kept(132, tokens_per_entry=4)
    assert pooled.matrices(300)[-1] == Matrix("index_weights", 128, 300)


def test_layers_that_share_an_index_are_sparse_and_keep_no_keys_for_it() -> None:
    shared = replace(LATENT, shared_index=True)
    assert (shared.kind, LATENT.kind, SPARSE.kind) == (SPARSE.kind, "latent attention", "sparse latent attention")
    assert [kept.entry_bytes for kept in shared.kept(FP8)] == [256 + 2 * 4 + 16 * 2]


def test_compressed_attention_keeps_a_window_and_entries_of_several_tokens() -> None:
    indexed = CompressedLatent(8, 64, 32, 2, 16, 100, 4, overlapping=True, indexer=Indexer(4, 128))
    assert indexed.kept(BF16) == (Kept(128, 100), Kept(128, tokens_per_entry=4), Kept(132, tokens_per_entry=4))
    assert Matrix("compressor", 2 * 2 * 64, 300) in indexed.matrices(300)
    window = replace(indexed, tokens_per_entry=0, indexer=None)
    assert window.kept(BF16) == (Kept(128, 100),)
    assert window.matrices(300) == (
        Matrix("query_down", 32, 300),
        Matrix("query_up", 8 * 64, 32),
        Matrix("latent", 64, 300),
        Matrix("output_down", 2 * 16, 8 * 64 // 2),
        Matrix("output", 300, 2 * 16),
    )


def test_a_rank_has_its_share_of_heads_and_the_whole_latent() -> None:
    varied = VariedQuery(8, 2, 64, 64, window_tokens=5)
    assert varied.of_rank(4) == replace(varied, heads=2, kv_heads=1)
    assert SPARSE.of_rank(4) == replace(SPARSE, heads=2)
    assert SPARSE.of_rank(4).kept(BF16) == SPARSE.kept(BF16)
    compressed = CompressedLatent(8, 64, 32, 2, 16, 100, 4)
    assert compressed.of_rank(2) == replace(compressed, heads=4, output_groups=1)
    assert [kind.unsplittable(2) for kind in (varied, SPARSE, compressed)] == [None] * 3
    assert varied.unsplittable(3) == "does not divide 8 heads"
    assert LATENT.unsplittable(3) == "does not divide 8 heads"
    assert compressed.unsplittable(4) == "does not divide 8 heads in 2 groups"
