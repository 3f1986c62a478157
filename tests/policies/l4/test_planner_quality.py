"""The planner against exhaustive search by simulation, small enough for every test run; `benchmarks` has it in full."""

import numpy as np
import pytest

from benchmarks.planner_quality import Workload, judge, simulated_s
from l4sim.experiment import plan, run_policy, sample_demand
from l4sim.policies.plan import GivenPlan

AFFINE = {"instances": 4, "cost_model": "affine"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "workload",
    [
        Workload("mix", "long-context-mix.jsonl.gz", 400, 0.3, options=AFFINE),
        Workload("reasoning", "long-reasoning.jsonl.gz", 200, 2.0, options=AFFINE),
    ],
    ids=lambda workload: workload.name,
)
def test_the_planned_partition_is_within_5_percent_of_the_best_of_all_two_and_three_stages(workload):
    verdict = judge(*workload.load())
    assert verdict.searched > 20
    assert verdict.regret <= 0.05


@pytest.mark.slow
def test_simulation_finds_what_the_model_expects():
    trace, setup = Workload("mix", "long-context-mix.jsonl.gz", 800, 0.3, options=AFFINE).load()
    made = plan(sample_demand(trace, setup), setup)
    assert simulated_s(trace, setup, made.plan) == pytest.approx(made.value, rel=0.15)
    requests = run_policy("l4:handover", trace, setup, GivenPlan(lambda: made)).requests
    for stage, forecast in zip(made.plan.stages, made.forecasts, strict=True):
        inside = requests["prompt_tokens"].between(stage.lo_tokens, stage.hi_tokens, inclusive="left")
        assert requests["ttft_s"][inside].mean() == pytest.approx(forecast.ttft_s, rel=0.3)
        weights = requests["output_tokens"][inside]
        tpot_s = float(np.average(requests["tpot_s"][inside].fillna(0), weights=weights))
        assert tpot_s == pytest.approx(forecast.tpot_s, rel=0.3)
