"""The parts that a gain is split into."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4sim.bundled import folder
from l4sim.experiment import Options
from l4sim.gain import explain_gain
from l4sim.workload.arrange import head, scale_rate
from l4sim.workload.load import load_trace

OPTIONS = Options(instances=4)


@pytest.fixture(scope="module")
def trace():
    return scale_rate(head(load_trace(folder("traces") / "long-context-mix.jsonl.gz"), 200), 0.3)


def test_the_parts_sum_to_the_gain_over_the_best_rival(trace):
    gain = explain_gain(trace, OPTIONS, ("random", "vllm"))
    assert gain.rival == "vllm"
    assert gain.kernel + gain.isolation + gain.memory + gain.balancing == pytest.approx(gain.total)


def test_on_a_kernel_that_does_not_mind_unequal_lengths_its_share_is_zero(trace):
    assert explain_gain(trace, replace(OPTIONS, cost_model="mean"), ("vllm",)).kernel == 0


def test_on_flashinfer_s_tensor_core_split_batches_become_alike_and_requests_are_handed_over(trace):
    gain = explain_gain(trace, replace(OPTIONS, kernel="flashinfer-tensor"), ("vllm",))
    ours, theirs = gain.heterogeneity
    assert ours < theirs
    assert gain.handovers > 0
