"""Latent attention by tables: what is measured stays, unequal lengths show, prompts count tokens and pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.latent import latent, prompts_of
from l4sim.cost.attention.part import AttentionPart, AttentionSetting
from l4sim.cost.profile import load_profile
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.attention import Indexer, Latent
from l4sim.specs.dtypes import Dtypes
from tests.cost.attention.recorded_batches import NONE, decodes

DEEPSEEK = Latent(16, 1536, 512, 128, 64, 128)
"""One rank's share of 128 heads among 8."""
BATCH, LENGTH = np.array([1, 8, 64]), np.array([128, 1024, 8192])
TOKEN_S, PAIR_S, STEP_S = 1e-7, 1e-12, 1e-8


def uniform(name: str, seconds: object, **kinds: str) -> OperatorTable:
    """A table of one row of 16 heads, and one of 32 that takes twice as long."""
    values = np.asarray(seconds, dtype=float)
    axes = {"batch": BATCH, "length": LENGTH}
    given = {kind: np.array([value] * 2) for kind, value in {"kv_dtype": "bfloat16", **kinds}.items()}
    return OperatorTable(name, given, {"heads": np.array([16, 32])}, axes, np.array([values, 2 * values]))


def _grid() -> tuple[np.ndarray, np.ndarray]:
    batch, length = np.meshgrid(BATCH, LENGTH, indexing="ij")
    return batch.astype(float), length.astype(float)


BATCHES, LENGTHS = _grid()
PROMPTS_S = 20e-6 + TOKEN_S * BATCHES * LENGTHS + PAIR_S * BATCHES * LENGTHS**2 / 2
DECODES_S = 20e-6 + 1e-7 * BATCHES + STEP_S * BATCHES * LENGTHS / 1000


def part(attention: Latent = DEEPSEEK, *, kv: str = "bfloat16", **tables: OperatorTable) -> AttentionPart:
    given = tables or {
        "latent_decode_module": uniform("latent_decode_module", DECODES_S, gemm_dtype="bfloat16"),
        "latent_prefill_module": uniform("latent_prefill_module", PROMPTS_S, gemm_dtype="bfloat16"),
    }
    profile = replace(load_profile("h200-sxm"), tables=given)
    return latent(AttentionSetting(profile, 7168, 8, "fa3"), attention, Dtypes(kv=kv))


def prompt(*chunks: Prefill) -> Batch:
    return Batch(NONE, 0, chunks)


def test_equal_lengths_take_what_was_measured() -> None:
    model = part().model
    assert model.attention_s(decodes(*[1024] * 8)) == pytest.approx(DECODES_S[1][1])
    assert model.attention_s(prompt(*[Prefill(1024, 0)] * 8)) == pytest.approx(PROMPTS_S[1][1])
    assert model.attention_s(Batch(NONE, 0)) == 0


def test_unequal_lengths_take_longer_by_the_kernels_split() -> None:
    uneven = decodes(*[512] * 63, 64 * 4096 - 63 * 512)
    assert part().model.attention_s(uneven) > 1.02 * part().model.attention_s(decodes(*[4096] * 64))


def test_a_prompt_behind_cached_tokens_pays_for_the_pairs_with_them() -> None:
    model = part().model
    whole = model.attention_s(prompt(Prefill(1024, 0)))
    behind = model.attention_s(prompt(Prefill(1024, 7168)))
    assert behind - whole == pytest.approx(PAIR_S * 1024 * 7168, rel=0.02)


def test_beside_prompts_projections_of_decodes_are_part_of_one_product() -> None:
    model = part().model
    contexts = np.full(8, 1024)
    mixed = model.attention_s(Batch(contexts, int(contexts.sum()), (Prefill(1024, 0),)))
    apart = model.attention_s(decodes(*[1024] * 8)) + model.attention_s(prompt(Prefill(1024, 0)))
    assert PROMPTS_S[0][1] < mixed < apart - 15e-6


def test_a_module_has_its_projections_in_it() -> None:
    assert part().covers >= {"query_down", "query_up", "latent", "latent_up", "output"}
    assert part().measured
    assert not part(replace(DEEPSEEK, heads=24)).measured
    assert not part(kv="fp8").measured


def test_kernels_alone_have_the_products_of_latent_vectors_beside_them() -> None:
    bmm = OperatorTable(
        "latent_bmm",
        {"op": np.array(["mla_gen_post", "mla_gen_pre"])},
        {"heads": np.array([16, 16])},
        {"tokens": np.array([1, 4096])},
        np.array([[2e-6, 2e-6], [3e-6, 3e-6]]),
    )
    gemm = OperatorTable(
        "gemm",
        {"dtype": np.array(["bfloat16"])},
        {"n": np.array([4096]), "k": np.array([512])},
        {"tokens": np.array([1, 1 << 14])},
        np.array([[1e-5, 1e-5]]),
    )
    found = part(
        latent_decode=uniform("latent_decode", DECODES_S),
        latent_prefill=uniform("latent_prefill", PROMPTS_S),
        latent_bmm=bmm,
        gemm=gemm,
    )
    assert found.covers == {"latent_up"}
    assert found.model.attention_s(decodes(*[1024] * 8)) == pytest.approx(DECODES_S[1][1] + 5e-6)
    assert found.model.attention_s(prompt(Prefill(1024, 0))) == pytest.approx(PROMPTS_S[0][1] + 1e-5)


def test_a_row_is_taken_apart_into_tokens_and_pairs() -> None:
    made = prompts_of(uniform("latent_prefill", PROMPTS_S), 0)
    assert made.pair_s == pytest.approx(PAIR_S)
    assert made.at(2, 3000, 2e6) == pytest.approx(20e-6 + TOKEN_S * 3000 + PAIR_S * 2e6, rel=0.1)


def test_sparse_layers_have_rows_of_their_own_with_an_indexer_or_without() -> None:
    ops = np.array(["dsa_generation_module", "dsa_generation_module_skip_indexer"])
    models = np.array(["deepseek-ai/DeepSeek-V3.2"] * 2)
    tables = {}
    for name, seconds in {"sparse_decode": DECODES_S, "sparse_prefill": PROMPTS_S}.items():
        one = uniform(name, seconds, gemm_dtype="bfloat16")
        sizes = {"heads": np.array([16, 16]), "cached": np.array([0, 0])}
        kinds = {**one.kinds, "op": ops, "model": models}
        tables[name] = replace(one, kinds=kinds, sizes=sizes)
    indexed = part(replace(DEEPSEEK, indexer=Indexer(64, 128)), **tables)
    shared = part(replace(DEEPSEEK, shared_index=True), **tables)
    batch = decodes(*[1024] * 8)
    assert indexed.model.attention_s(batch) == pytest.approx(DECODES_S[1][1])
    assert shared.model.attention_s(batch) == pytest.approx(2 * DECODES_S[1][1])
    assert "index_query" in indexed.covers
    # How unequal lengths are split is not known: their mean counts.
    assert indexed.model.attention_s(decodes(*[512] * 7, 4608)) == pytest.approx(DECODES_S[1][1])


def test_a_profile_without_tables_has_no_seconds_of_it() -> None:
    other = uniform("gemm", DECODES_S)
    with pytest.raises(InputError, match="profile h200-sxm has no seconds of latent attention"):
        part(gemm=other)
    with pytest.raises(InputError, match="no seconds of sparse latent attention"):
        part(replace(DEEPSEEK, indexer=Indexer(64, 128)))
