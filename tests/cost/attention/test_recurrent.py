"""Linear attention by tables of gated delta nets: lengths of contexts do not matter, states' bytes do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.part import AttentionSetting
from l4sim.cost.attention.recurrent import gated_delta_net, kimi_delta, mamba
from l4sim.cost.profile import load_profile
from l4sim.cost.tables.table import OperatorTable
from l4sim.errors import InputError
from l4sim.specs.dtypes import Dtypes
from l4sim.specs.recurrent import GatedDeltaNet, KimiDelta, Mamba
from tests.cost.attention.recorded_batches import NONE, decodes

NET = GatedDeltaNet(2, 8, 128, 128, 4, "float32")
DTYPES = Dtypes()


def tables() -> dict[str, OperatorTable]:
    """Two kernels of nets of 8 and of 16 value heads: 1 us and 2 us a request that decodes, 10 and 20 ns a token."""
    kinds = {"kernel": np.array(["conv", "conv", "delta", "delta"])}
    heads = np.array([8, 16, 8, 16])
    sizes = {"k_heads": heads // 4, "k_dim": np.full(4, 128), "v_heads": heads, "v_dim": np.full(4, 128)}
    weight = np.array([1.0, 2.0, 2.0, 4.0])
    tokens = np.array([1, 1024])
    batch, length = np.array([1, 8]), np.array([128, 4096])
    prompt = 1e-8 * batch[:, None] * length[None, :]
    return {
        "delta_net_decode": OperatorTable("d", kinds, sizes, {"tokens": tokens}, 1e-6 * weight[:, None] * tokens),
        "delta_net_prefill": OperatorTable(
            "p", kinds, sizes, {"batch": batch, "length": length}, weight[:, None, None] * prompt
        ),
    }


@pytest.fixture
def setting() -> AttentionSetting:
    return AttentionSetting(replace(load_profile("h200-sxm"), tables=tables()), 4096, 8, "fa3")


def test_decodes_count_and_their_contexts_do_not(setting: AttentionSetting) -> None:
    attention_s = gated_delta_net(setting, NET, DTYPES).model.attention_s
    assert attention_s(decodes(10, 20, 30)) == attention_s(decodes(1, 1, 100_000)) == pytest.approx(9e-6)


def test_prompts_count_by_tokens_whatever_is_cached(setting: AttentionSetting) -> None:
    attention_s = gated_delta_net(setting, NET, DTYPES).model.attention_s
    alone = attention_s(Batch(NONE, 0, (Prefill(1000, 0),)))
    assert alone == attention_s(Batch(NONE, 0, (Prefill(1000, 5000),))) == pytest.approx(3e-5)
    both = attention_s(Batch(np.array([7]), 7, (Prefill(1000, 0),)))
    assert both == pytest.approx(alone + 3e-6)


def test_a_row_of_its_sizes_is_measured_and_its_convolution_in_it(setting: AttentionSetting) -> None:
    found = gated_delta_net(setting, NET, DTYPES)
    assert (found.measured, found.covers) == (True, {"conv"})


def test_other_sizes_and_rules_are_scaled_by_their_states_and_said_to_be(setting: AttentionSetting) -> None:
    wide = gated_delta_net(setting, replace(NET, key_heads=3, value_heads=12), DTYPES)
    assert not wide.measured
    # The nearest has 16 heads, and so states of 4/3 the elements.
    assert wide.model.attention_s(decodes(5)) == pytest.approx(6e-6 * 12 / 16)
    kimi = kimi_delta(setting, KimiDelta(8, 128, 4), DTYPES)
    assert (kimi.measured, kimi.model.attention_s(decodes(5))) == (False, pytest.approx(3e-6))
    mixer = mamba(setting, Mamba(8, 64, 2, 128, 4), DTYPES)
    assert (mixer.measured, mixer.model.attention_s(decodes(5))) == (False, pytest.approx(1.5e-6))


def test_a_profile_without_tables_has_no_seconds_of_it() -> None:
    setting = AttentionSetting(load_profile("h200-sxm"), 4096, 8, "fa3")
    with pytest.raises(InputError, match="profile h200-sxm has no seconds of linear attention"):
        gated_delta_net(setting, NET, DTYPES)
