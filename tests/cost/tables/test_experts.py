"""Experts from a table: measured mixtures, choices by chance, other sizes and formats."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from pandas import read_csv

from l4sim.cost.tables.experts import Mixture, Mixtures, hit_experts, uniform_choices
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.gpu import GPUS

H100 = GPUS["h100-sxm"]
TOKENS = np.array([1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096])
MIXTRAL = Mixture(4096, 14336, 2, 8, 1, 1, "balanced")


def table(mixtures: list[tuple[str, Mixture]]) -> OperatorTable:
    """Tables by a law: the weights that balanced tokens hit, and the products."""
    rows = []
    for dtype, each in mixtures:
        one = 3 * each.hidden * each.intermediate / each.moe_tp
        hit = np.minimum(each.experts, TOKENS * each.per_token) / each.moe_ep
        work_s = 2 * one * TOKENS * each.per_token / each.moe_ep / 6e14
        rows.append(1e-5 + (2 if dtype == "bfloat16" else 1) * hit * one / 3e12 + work_s)
    columns = ("hidden", "intermediate", "per_token", "experts", "moe_tp", "moe_ep")
    return OperatorTable(
        "experts",
        {
            "dtype": np.array([dtype for dtype, _ in mixtures]),
            "distribution": np.array([each.distribution for _, each in mixtures]),
        },
        {name: np.array([getattr(each, name) for _, each in mixtures]) for name in columns},
        {"tokens": TOKENS},
        np.array(rows),
    )


ROWS = [
    (dtype, MIXTRAL._replace(moe_tp=ranks, moe_ep=groups, distribution=load))
    for dtype, ranks, groups, load in product(("bfloat16", "fp8_block"), (1, 2), (1, 4), ("balanced", "power_law_1.2"))
]
TABLE = table(ROWS)
MIXTURES = Mixtures(TABLE, H100)


def test_a_measured_mixture_is_looked_up() -> None:
    found = MIXTURES.seconds("bfloat16", MIXTRAL, TOKENS)
    assert found.measured
    assert found.seconds == pytest.approx(TABLE.seconds[0])


def test_by_chance_few_tokens_hit_fewer_experts_than_balanced_ones_and_many_hit_all() -> None:
    by_chance = MIXTURES.seconds("bfloat16", MIXTRAL._replace(distribution="uniform"), TOKENS).seconds
    balanced = MIXTURES.seconds("bfloat16", MIXTRAL, TOKENS).seconds
    assert hit_experts(MIXTRAL, np.array([1.0, 4.0])) == pytest.approx([2, 8 * (1 - 0.75**4)])
    # Four tokens hit 5.5 of 8 experts.
    assert by_chance[2] / balanced[2] == pytest.approx(5.5 / 8, rel=0.05)
    assert by_chance[0] == pytest.approx(balanced[0])
    assert by_chance[5:] == pytest.approx(balanced[5:], rel=1e-3)


def test_of_several_groups_the_one_that_has_most_counts() -> None:
    hit, most = uniform_choices(MIXTRAL._replace(moe_ep=4), np.array([2.0, 4096.0]))
    # Two tokens make four choices among four groups: one group mostly has more than its share.
    assert hit[0] > 1.2 * hit_experts(MIXTRAL, np.array([2.0]))[0] / 2
    assert most[1] == pytest.approx(4096 * 1.02, rel=0.01)


def test_another_size_is_the_nearest_scaled_by_rooflines_and_not_called_measured() -> None:
    wider = MIXTRAL._replace(intermediate=2 * 14336)
    found, near = (MIXTURES.seconds("bfloat16", each, TOKENS) for each in (wider, MIXTRAL))
    assert not found.measured
    assert found.seconds[-1] / near.seconds[-1] == pytest.approx(2, rel=0.05)


def test_another_format_is_scaled_and_one_that_nothing_stands_for_is_refused() -> None:
    found, eight = (MIXTURES.seconds(weights, MIXTRAL, TOKENS) for weights in ("nvfp4", "fp8-block128"))
    assert (found.measured, eight.measured) == (False, True)
    assert found.seconds[2] < MIXTURES.seconds("bfloat16", MIXTRAL, TOKENS).seconds[2]
    with pytest.raises(InputError, match="no seconds of experts in float32"):
        MIXTURES.seconds("float32", MIXTRAL, TOKENS)


def test_layers_that_were_timed_by_tokens_and_activated_experts(shared: Path) -> None:
    """Qwen3-30B-A3B in vLLM on an RTX PRO 6000: what hits a number of experts takes what balanced tokens do that hit as
    many, and what the tokens beyond those that hit all take more. The balanced rows tell all others."""
    rows = read_csv(shared / "measurements" / "llmservingsim_rtxpro6000_qwen3-30b-a3b_moe.csv.gz")
    balanced = rows[rows.activated_experts == np.minimum(8 * rows.tokens, 128)]
    others = rows.drop(balanced.index)
    others = others[others.activated_experts >= 32]

    def taken_us(tokens: object) -> np.ndarray:
        return np.interp(np.asarray(tokens, dtype=float), balanced.tokens, balanced.time_us)

    predicted_us = taken_us(others.activated_experts / 8) + taken_us(np.maximum(others.tokens, 16)) - taken_us(16)
    error_pct = 100 * np.abs(predicted_us / others.time_us - 1)
    assert len(others) >= 14
    assert error_pct.mean() < 5
    assert error_pct.max() < 20
