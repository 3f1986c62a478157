"""How long planning takes, from the histogram to the plan, cost tables included. Run with `make bench`."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.experiment import Options, plan, resolve
from l4sim.policies.l4.demand import geometric_edges, measure_demand


def mixed_demand(rate, longest, median_document):
    """70 % chats and 30 % long documents, up to ``longest`` tokens."""
    random = np.random.default_rng(0)
    chat = random.random(5000) < 0.7
    prompt = np.where(chat, random.lognormal(6.5, 1.0, 5000), random.lognormal(np.log(median_document), 1.2, 5000))
    prompt = np.clip(prompt, 1, 0.9 * longest).astype(np.int64)
    output = np.clip(random.lognormal(6, 0.8, 5000), 1, 0.1 * longest).astype(np.int64)
    return measure_demand(prompt, output, np.full(5000, rate / 5000), geometric_edges(longest))


@pytest.mark.parametrize(
    ("instances", "model", "rate", "longest", "median_document", "at_most_s"),
    [
        (16, "llama-3.1-8b", 4, 131_072, 16_000, 0.06),
        (1024, "qwen2.5-14b-1m", 50, 1_010_000, 60_000, 1.0),
    ],
    ids=["16 instances, 128K", "1,024 instances, 1M"],
)
def test_planning_time(benchmark, instances, model, rate, longest, median_document, at_most_s):
    setup = resolve(Options(instances=instances, model=model))
    demand = mixed_demand(rate, longest, median_document)
    made = benchmark.pedantic(plan, (demand, setup), rounds=5, warmup_rounds=1)
    assert made.feasible
    assert len(made.plan.stages) > 3
    if benchmark.stats is not None:  # None where benchmarks are disabled
        assert benchmark.stats.stats.min <= at_most_s
