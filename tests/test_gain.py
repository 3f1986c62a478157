"""The parts that a gain is split into."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import l4sim
from l4sim.bundled import folder
from l4sim.errors import InputError
from l4sim.experiment import Options
from l4sim.gain import explain_gain
from l4sim.policies.defaults import RIVALS
from l4sim.workload.load import load_trace
from l4sim.workload.transform import head, scale_rate

OPTIONS = Options(instances=4)


@pytest.fixture(scope="module")
def trace():
    return scale_rate(head(load_trace(folder("traces") / "long-context-mix.jsonl.gz"), 120), 0.3)


@pytest.fixture(scope="module")
def gain(trace):
    return explain_gain(trace, OPTIONS, ("random", "least-harm"))


@pytest.fixture(scope="module")
def gain_on_tensor_cores(trace):
    return explain_gain(trace, replace(OPTIONS, kernel="flashinfer-tensor"), ("least-harm",), policy="l4:across")


@pytest.mark.slow
def test_the_gain_is_over_the_best_rival(trace, gain):
    table = l4sim.compare(trace, ["random", "least-harm", "l4"], OPTIONS).table["normalized_latency_mean_s"]
    assert gain.normalized_latency_s == pytest.approx(table.to_dict())
    assert gain.rival == table[["random", "least-harm"]].idxmin()
    assert gain.total == pytest.approx(1 - table["l4"] / table[gain.rival])
    assert gain.finished == 120


def test_no_oracle_is_a_rival_unless_it_is_named():
    assert not [name for name in RIVALS if name.startswith(("oracle", "l4"))]


@pytest.mark.slow
def test_the_parts_sum_to_the_gain(gain):
    assert gain.kernel + gain.isolation + gain.memory + gain.balancing == pytest.approx(gain.total)


@pytest.mark.slow
@pytest.mark.parametrize("cost_model", ["mean", "sum", "affine"])
def test_on_a_kernel_that_does_not_mind_unequal_lengths_its_share_is_zero(trace, cost_model):
    assert explain_gain(head(trace, 60), replace(OPTIONS, cost_model=cost_model), ("least-harm",)).kernel == 0


@pytest.mark.slow
def test_the_kernel_s_share_is_what_the_gain_loses_on_equal_lengths(trace, gain_on_tensor_cores):
    gain, options = gain_on_tensor_cores, replace(OPTIONS, kernel="flashinfer-tensor")
    blind = explain_gain(trace, replace(options, cost_model="mean"), ("least-harm",), policy="l4:across")
    assert gain.kernel == pytest.approx(gain.total - blind.total)
    assert gain.isolation == pytest.approx(blind.isolation)


@pytest.mark.slow
def test_prompts_of_one_token_leave_nothing_to_isolate(trace):
    short = replace(trace, prompt_tokens=np.ones_like(trace.prompt_tokens))
    assert explain_gain(short, OPTIONS, ("random",)).isolation == pytest.approx(0, abs=0.02)


@pytest.mark.slow
def test_where_kv_memory_is_ample_its_share_is_zero(gain):
    assert gain.memory == 0


@pytest.mark.slow
def test_where_kv_memory_is_short_it_has_a_share(trace):
    needed = int((trace.prompt_tokens + trace.output_tokens).max()) // 16 + 1
    assert explain_gain(trace, replace(OPTIONS, kv_blocks=needed), ("least-harm",)).memory != 0


@pytest.mark.slow
def test_on_flashinfer_s_tensor_core_split_batches_become_alike_and_requests_are_handed_over(gain_on_tensor_cores):
    assert gain_on_tensor_cores.spread < gain_on_tensor_cores.rival_spread
    assert gain_on_tensor_cores.handovers > 0


@pytest.mark.slow
def test_the_spread_of_a_batch_is_its_standard_deviation_over_its_mean():
    pair = l4sim.synthesize(
        prompt_lengths="fixed:tokens=100", output_lengths="fixed:tokens=500", rate_per_s=1, requests=2
    )
    pair = replace(pair, prompt_tokens=np.array([1000, 3000]), arrival_s=np.zeros(2))
    gain = explain_gain(pair, Options(instances=2), ("round-robin",), policy="least-harm")
    assert gain.spread == gain.rival_spread == 0  # each has an instance of its own
    alone = explain_gain(pair, Options(instances=1), ("round-robin",), policy="least-harm")
    # 1,000 and 3,000 tokens, both growing by 500: the deviation is 1,000 around means from 2,000 to 2,500.
    assert 1000 / 2500 < alone.spread < 1000 / 2000


@pytest.mark.slow
def test_every_default_rival_can_be_compared_with(trace):
    assert set(explain_gain(head(trace, 20), OPTIONS).normalized_latency_s) == {"l4", *RIVALS}


def test_what_cannot_be_compared_is_refused(trace):
    with pytest.raises(InputError, match="a gain needs a rival to be over"):
        explain_gain(trace, OPTIONS, ())
    with pytest.raises(InputError, match="no request finished"):
        explain_gain(trace, replace(OPTIONS, max_model_len=1), ("random",), policy="least-harm")
    # With every instance dead after 9 s, who was where decides what was done by then.
    deaths = replace(OPTIONS, failures=",".join(f"{instance}@9s" for instance in range(4)))
    with pytest.raises(InputError, match="least-harm and random finished different requests"):
        explain_gain(trace, deaths, ("random",), policy="least-harm")
