"""The partitioner against every plan there is."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4sim.cost.affine import AffineCost
from l4sim.errors import InputError
from l4sim.policies.l4.demand import geometric_edges, measure_demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import partition, runner_ups, solve, useful_cuts
from l4sim.policies.l4.qoe import Capacity, stage_table

JOINS = {np.add: sum, np.maximum: max}
COST = AffineCost(
    base_s=5e-3, per_sequence_s=2e-5, per_prefill_token_s=2e-5, per_context_token_s=3e-8, per_prefill_pair_s=2e-10
)
CAPACITY = Capacity(kv_tokens=400_000, max_num_seqs=256, max_num_batched_tokens=8192)


def all_plans(ranges, instances, stages=None):
    """Every plan as (first cut, last cut, instances) per stage."""
    for count in range(1, min(ranges, instances) + 1) if stages is None else (stages,):
        for inner in combinations(range(1, ranges), count - 1):
            for ends in combinations(range(1, instances), count - 1):
                sizes = [b - a for a, b in pairwise((0, *ends, instances))]
                yield [(i, j, m) for (i, j), m in zip(pairwise((0, *inner, ranges)), sizes, strict=True)]


def total(costs, plan, join):
    return JOINS[join](costs[j * (j - 1) // 2 + i, m - 1] for i, j, m in plan)


@st.composite
def problems(draw):
    ranges, instances = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    pairs = ranges * (ranges + 1) // 2
    value = st.one_of(st.floats(0, 100), st.just(np.inf))
    values = draw(st.lists(value, min_size=pairs * instances, max_size=pairs * instances))
    return np.array(values).reshape(pairs, instances), ranges, instances


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(problems(), st.sampled_from([np.add, np.maximum]), st.integers(0, 4))
def test_equals_exhaustive_search(problem, join, stages):
    costs, ranges, instances = problem
    wanted = stages or None
    totals = [total(costs, plan, join) for plan in all_plans(ranges, instances, wanted)]
    least = min(totals, default=np.inf)
    found = solve(costs, ranges, instances, join, wanted)
    if np.isinf(least):
        assert found is None
        return
    assert found in list(all_plans(ranges, instances, wanted))
    assert total(costs, found, join) == pytest.approx(least)


@pytest.mark.slow
def test_equals_a_plain_recurrence_with_hundreds_of_instances():
    ranges, instances = 4, 300
    costs = np.random.default_rng(1).exponential(1, (10, instances)) / np.arange(1, instances + 1)
    best = {(0, 0): 0.0}
    for j in range(1, ranges + 1):
        for n in range(instances + 1):
            best[j, n] = min(
                (
                    best[i, n - m] + costs[j * (j - 1) // 2 + i, m - 1]
                    for i in range(j)
                    for m in range(1, n + 1)
                    if (i, n - m) in best
                ),
                default=np.inf,
            )
    found = solve(costs, ranges, instances, np.add)
    assert sum(m for _, _, m in found) == instances
    assert total(costs, found, np.add) == pytest.approx(best[ranges, instances])


def mixed_demand(rate):
    """70 % chats and 30 % long documents."""
    random = np.random.default_rng(2)
    chat = random.random(400) < 0.7
    prompt = np.where(chat, random.lognormal(6, 0.8, 400), random.lognormal(9.7, 0.7, 400)).astype(np.int64)
    output = random.lognormal(5.5, 0.8, 400).astype(np.int64) + 1
    return measure_demand(
        np.minimum(prompt, 60_000) + 1, np.minimum(output, 4000), np.full(400, rate / 400), geometric_edges(65_536)
    )


def test_stages_tile_all_lengths_and_instances():
    made = partition(mixed_demand(4), COST, CAPACITY, 8)
    assert len(made.plan.stages) > 1
    assert made.plan.stages[-1].hi_tokens == 65_536
    assert [instance for stage in made.plan.stages for instance in stage.instances] == list(range(8))
    assert made.feasible
    assert made.value == pytest.approx(sum(forecast.cost for forecast in made.forecasts))
    assert sum(forecast.prompts_per_s for forecast in made.forecasts) == pytest.approx(4)


@pytest.mark.slow
def test_no_plan_over_the_same_buckets_is_expected_to_be_better():
    demand, instances = mixed_demand(4), 4
    made = partition(demand, COST, CAPACITY, instances)
    cuts = useful_cuts(demand)
    ranges = tuple((i, j) for j in range(len(cuts)) for i in range(j))
    table = stage_table(demand, COST, CAPACITY, tuple((cuts[i], cuts[j]) for i, j in ranges), instances)
    costs = Objective().costs(table, demand)
    least = min(total(costs, plan, np.add) for plan in all_plans(len(cuts) - 1, instances))
    assert made.value == pytest.approx(least)


@pytest.mark.slow
@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_the_number_of_stages_can_be_forced_and_costs(stages):
    demand = mixed_demand(4)
    made = partition(demand, COST, CAPACITY, 8, stages=stages)
    assert len(made.plan.stages) == stages
    assert made.value >= partition(demand, COST, CAPACITY, 8).value


@pytest.mark.slow
def test_runner_ups_have_other_numbers_of_stages_and_are_no_better():
    demand = mixed_demand(4)
    made = partition(demand, COST, CAPACITY, 8)
    others = runner_ups(demand, COST, CAPACITY, 8, than=made)
    counts = [len(other.plan.stages) for other in others]
    assert len(set(counts)) == len(counts) > 1
    assert len(made.plan.stages) not in counts
    assert [made.value, *(other.value for other in others)] == sorted([made.value, *(other.value for other in others)])


@pytest.mark.slow
def test_where_nothing_is_feasible_the_least_overload_says_by_how_much():
    demand = mixed_demand(50)
    made = partition(demand, COST, CAPACITY, 4)
    assert not made.feasible
    assert made.value == np.inf
    cuts = useful_cuts(demand)
    ranges = tuple((cuts[i], cuts[j]) for j in range(len(cuts)) for i in range(j))
    loads = stage_table(demand, COST, CAPACITY, ranges, 4).load
    least = min(total(loads, plan, np.maximum) for plan in all_plans(len(cuts) - 1, 4))
    assert made.least_load == pytest.approx(least)
    assert made.load >= least > 1


@pytest.mark.slow
def test_slight_overload_does_not_mix_short_requests_with_long_ones():
    def first_overload(rates):
        return next(rate for rate in rates if not partition(mixed_demand(rate), COST, CAPACITY, 8).feasible)

    roughly = first_overload(np.arange(4, 40, 3))
    rate = first_overload(np.arange(roughly - 2.75, roughly + 0.25, 0.25))
    assert len(partition(mixed_demand(rate), COST, CAPACITY, 8).plan.stages) > 1


def test_one_instance_is_one_stage():
    made = partition(mixed_demand(0.5), COST, CAPACITY, 1)
    assert [(stage.lo_tokens, stage.hi_tokens) for stage in made.plan.stages] == [(0, 65_536)]


def test_answers_of_one_token_each_are_planned_for_as_well():
    demand = measure_demand(np.array([1000, 20_000]), np.array([1, 1]), np.array([1.0, 1.0]), geometric_edges(65_536))
    assert partition(demand, COST, CAPACITY, 4).feasible


def test_boundaries_are_only_where_there_is_something_on_both_sides():
    demand = measure_demand(
        np.array([1000, 20_000]), np.array([100, 100]), np.array([1.0, 1.0]), geometric_edges(65_536)
    )
    edges = demand.edges_tokens[useful_cuts(demand)]
    assert edges[0] == 0
    assert edges[-1] == 65_536
    assert 1 <= len(edges) - 2 <= 2
    assert all(1000 < edge < 20_100 for edge in edges[1:-1])


@pytest.mark.slow
def test_other_objectives_may_choose_other_plans_and_keep_to_theirs():
    demand = mixed_demand(5)
    e2e = partition(demand, COST, CAPACITY, 8, objective=Objective("e2e"))
    usual = partition(demand, COST, CAPACITY, 8)
    assert e2e.objective.name == "e2e"
    assert e2e.value > 10 * usual.value
    slo = partition(demand, COST, CAPACITY, 8, objective=Objective("slo", ttft_slo_s=1.0, tpot_slo_s=0.02))
    assert 0 <= slo.value <= 1


@pytest.mark.parametrize("stages", [0, 9])
def test_refuses_more_stages_than_instances(stages):
    with pytest.raises(InputError, match=rf"^{stages} stages: 8 instances and \d+ useful ranges .* accept 1 to 8$"):
        partition(mixed_demand(4), COST, CAPACITY, 8, stages=stages)
