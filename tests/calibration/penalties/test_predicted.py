"""What unequal lengths cost, per kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.calibration.penalties.predicted import BATCHES, MEAN_TOKENS, SKEWS, penalties
from l4sim.cost.profile import load_profile
from l4sim.errors import InputError
from l4sim.specs.attention import Latent, VariedQuery
from l4sim.specs.model import load_model
from tests.mixed_model import MIXED, WIDE


@pytest.fixture(scope="module")
def table():
    cells = penalties(load_profile("h200-sxm"), load_model("llama-3.1-8b"))
    return {(cell.kernel, cell.skew, cell.batch): cell for cell in cells}


@pytest.mark.parametrize("skew", SKEWS, ids=lambda skew: skew.name)
@pytest.mark.parametrize("batch", BATCHES)
def test_every_mix_has_the_same_tokens_in_all(skew, batch):
    contexts = skew.contexts(batch, MEAN_TOKENS)
    assert len(contexts) == batch
    # Whole tokens: less than one per request is lost.
    assert abs(int(contexts.sum()) - batch * MEAN_TOKENS) <= batch


def test_all_five_kernels_are_compared(table):
    assert {kernel for kernel, _, _ in table} == {
        "fa3",
        "fa2",
        "flashinfer-cuda",
        "flashinfer-tensor",
        "flashinfer-batch",
    }
    assert len(table) == 5 * len(SKEWS) * len(BATCHES)


def test_tensor_cores_without_a_split_wait_for_the_one_long_request(table):
    # With 8 KV heads there are 33 slots on 132 SMs: at 64 requests nothing is split. A small batch is, evenly.
    assert table["flashinfer-tensor", "one has half", 64].ratio > 4
    assert table["flashinfer-tensor", "one has half", 8].ratio < 1.1


def test_a_balanced_kernel_minds_little(table):
    assert table["flashinfer-batch", "one has half", 256].ratio < 1.5


def test_the_basis_tells_what_was_measured(table):
    assert table["fa3", "one has half", 64].basis.startswith("fitted to batches of equal lengths")
    assert table["fa2", "one has half", 64].basis.startswith("not measured")
    [cell, *_] = penalties(load_profile("rtx-pro-6000"), load_model("llama-3.1-8b"))
    assert cell.basis == "fitted to batches of equal and of unequal lengths"


def test_kinds_of_layers_are_told_apart():
    cells = penalties(load_profile("h200-sxm"), MIXED)
    assert list(dict.fromkeys(cell.layers for cell in cells)) == [
        "grouped-query attention (32 heads, 8 KV heads, 128 wide)",
        "grouped-query attention (16 heads, 2 KV heads, 128 wide)",
    ]


def test_a_window_of_which_all_lengths_are_longer_knows_no_unequal_ones():
    sliding = replace(WIDE, attention=VariedQuery(32, 8, 128, 128, window_tokens=128))
    model = replace(MIXED, groups=(sliding, WIDE))
    ratios = {(cell.layers, cell.skew): cell.ratio for cell in penalties(load_profile("h200-sxm"), model)}
    assert ratios["sliding-window attention", "two lengths, 1 : 7"] == 1
    assert ratios["grouped-query attention", "two lengths, 1 : 7"] > 1


def test_a_kind_that_the_profile_has_no_seconds_of_is_refused():
    latent = replace(WIDE, attention=Latent(128, 1536, 512, 128, 64, 128))
    with pytest.raises(InputError, match="profile h200-sxm has no seconds of latent attention"):
        penalties(load_profile("h200-sxm"), replace(MIXED, groups=(latent,)))
