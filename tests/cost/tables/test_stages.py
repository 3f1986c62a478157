"""Models on bundled profiles with tables: what is measured of them, and seconds of the right order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.basis import basis_of
from l4sim.cost.build import build_cost
from l4sim.cost.profile import Profile, load_profile
from l4sim.errors import InputError
from l4sim.specs.attention import GroupedQuery
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.layers import LayerGroup
from l4sim.specs.mlp import Experts
from l4sim.specs.model import Model, load_model
from l4sim.specs.parallelism import Parallelism

MIXTRAL = Model(
    "mixtral", 4096, 32000, 32768, (LayerGroup(32, GroupedQuery(32, 8, 128), Experts(8, 2, 14336)),), dtype="bfloat16"
)
FP8 = Dtypes(parts=tuple((part, "fp8-block128") for part in ("expert_down", "expert_up", "output", "qkv")))
QWEN = Model("qwen", 4096, 151936, 40960, (LayerGroup(94, GroupedQuery(64, 4, 128), Experts(128, 8, 1536), FP8),))


@pytest.fixture(scope="module")
def h100() -> Profile:
    return load_profile("h100-sxm-vllm")


@pytest.fixture(scope="module")
def h200() -> Profile:
    return load_profile("h200-sxm-vllm")


def decode(requests: int, context: int) -> Batch:
    return Batch(np.full(requests, context), requests * context)


def ms(profile: Profile, model: Model, batch: Batch, **split: int) -> float:
    limits = {"max_num_batched_tokens": 512, "max_num_seqs": 64}
    return 1e3 * build_cost(profile, model, **limits, **split).iteration_s(batch)


def test_a_dense_model_takes_what_it_takes_by_the_older_profile_of_the_same_gpu(h100: Profile) -> None:
    model = load_model("llama-3.1-8b")
    older = load_profile("h100-sxm")
    for batch in (decode(1, 1024), decode(32, 2048), Batch(np.empty(0, np.int64), 0, (Prefill(512, 0),))):
        assert ms(h100, model, batch) == pytest.approx(ms(older, model, batch), rel=0.1)


def test_few_tokens_read_few_experts_and_many_read_all(h100: Profile) -> None:
    one, many = (ms(h100, MIXTRAL, decode(count, 128), tensor_parallel=2) for count in (1, 32))
    weights_ms = 1e3 * MIXTRAL.weight_bytes / 2 / 3.35e12
    assert weights_ms < many < 1.5 * weights_ms
    assert one < many / 2.5


def test_ranks_with_requests_of_their_own_share_experts_and_wait_for_each_other(h200: Profile) -> None:
    apart = ms(h200, QWEN, decode(64, 1024), tensor_parallel=2, attention_dp=2, expert_parallel=4)
    together = ms(h200, QWEN, decode(64, 1024), tensor_parallel=4, expert_parallel=4)
    assert apart == pytest.approx(together, rel=0.4)
    uneven = Batch(np.array([128] * 63 + [32768]), 128 * 63 + 32768)
    short_ms, uneven_ms = (
        ms(h200, QWEN, batch, tensor_parallel=2, attention_dp=2) for batch in (decode(64, 128), uneven)
    )
    assert uneven_ms > 1.02 * short_ms


def test_a_norm_over_all_heads_is_one_more_all_reduce_of_two_numbers_a_token(h200: Profile) -> None:
    group = QWEN.groups[0]
    normed = replace(QWEN, groups=(replace(group, attention=GroupedQuery(64, 4, 128, normed_over_heads=True)),))
    own, other = (
        {ranks: ms(h200, model, decode(8, 512), tensor_parallel=ranks) for ranks in (1, 4)} for model in (QWEN, normed)
    )
    more_ms = {ranks: other[ranks] - own[ranks] for ranks in own}
    assert 0 < more_ms[1] < more_ms[4] < 94 * 0.02


def test_deepep_sends_tokens_where_a_profile_has_its_seconds(h200: Profile) -> None:
    split = {"attention_dp": 8, "expert_parallel": 8}
    sent, gathered = (
        build_cost(h200, QWEN, **split, expert_exchange=way, max_num_batched_tokens=64, max_num_seqs=64)
        for way in ("deepep", "all-gather")
    )
    # Two kernels of some 50 us a layer, where an all-reduce in one node takes less.
    assert 94 * 50e-6 < sent.iteration_s(decode(64, 128)) - gathered.iteration_s(decode(64, 128)) < 94 * 150e-6
    # Of so wide a model it was measured with another number of experts for each token.
    assert "exchange of tokens" in basis_of(h200, QWEN, "fa3", Parallelism(1, 8, 8), expert_exchange="deepep")
    assert "exchange of tokens" not in basis_of(h200, QWEN, "fa3", Parallelism(1, 8, 8))
    with pytest.raises(InputError, match="has no seconds of DeepEP, accepted is --expert-exchange all-gather"):
        build_cost(load_profile("b200-sxm-sglang"), QWEN, **split, expert_exchange="deepep")


def test_what_was_looked_up_is_measured_and_what_was_scaled_is_named(h200: Profile) -> None:
    assert basis_of(h200, QWEN, "fa3", 4) == "measured, but for element-wise kernels and host time: estimated"
    int8 = replace(QWEN, groups=(replace(QWEN.groups[0], dtypes=Dtypes("int8", "bfloat16")),))
    told = "measured, but for matrix products, experts, element-wise kernels and host time: estimated"
    assert basis_of(h200, int8, "fa3", 4) == told
    wider = replace(QWEN, groups=(replace(QWEN.groups[0], attention=GroupedQuery(72, 8, 128)),))
    assert "grouped-query attention" in basis_of(h200, wider, "fa3", Parallelism(4))


def test_a_profile_without_tables_has_no_seconds_of_experts(h100: Profile) -> None:
    with pytest.raises(InputError, match="mixtral: profile h100-sxm has no seconds of experts"):
        build_cost(load_profile("h100-sxm"), MIXTRAL)
    with pytest.raises(InputError, match="profile h100-sxm-vllm has no seconds of experts"):
        build_cost(replace(h100, tables={name: h100.tables[name] for name in ("gemm",)}), MIXTRAL)


def test_every_profile_with_tables_prices_a_mixture_and_says_where_it_is_from() -> None:
    for name in ("a100-80gb-sxm-vllm", "b200-sxm-sglang", "l40s-vllm"):
        profile = load_profile(name)
        cost = build_cost(profile, MIXTRAL, tensor_parallel=4, max_num_batched_tokens=64, max_num_seqs=16)
        assert 1e-3 < cost.iteration_s(decode(8, 512)) < 0.1
        assert profile.errors["gemm, between n"]["mape_pct"] < 10
        assert profile.errors["experts, between tokens"]["mape_pct"] < 10
        assert profile.sources["table of experts"].startswith("ai-dynamo/aisimulate, moe_perf of")
