"""What L4 plans for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.policies.l4.build import capacity_of, demand_for, plan_for, planned_as
from l4sim.policies.plan import SharedPlans
from l4sim.policies.views import InstanceKind
from l4sim.workload.histogram import LengthHistogram
from l4sim.workload.trace import PrefixBlocks
from tests.policies.settings import FACTS, sample, setting, unasked

MIXED = {"prompt_tokens": [20, 30, 40, 500] * 10, "output_tokens": [50, 20, 90, 100] * 10}


def traffic(**changes):
    return setting(**{"sample": lambda: sample(**MIXED), "plans": SharedPlans()} | changes)


def test_a_histogram_is_planned_for_in_place_of_the_sample():
    given = LengthHistogram(np.array([100]), np.array([10]), np.array([2.5]))
    demand = demand_for(traffic(sample=unasked("a sample"), histogram=lambda: given))
    assert demand.requests_per_s == 2.5
    assert demand.reuse is None


def test_a_sample_arrives_at_the_rate_that_it_came_with():
    assert demand_for(traffic()).requests_per_s == pytest.approx(40 / 39)


def test_a_sample_of_one_moment_has_no_rate():
    at_once = sample(**MIXED, arrival_s=np.zeros(40))
    with pytest.raises(InputError, match="positive arrival rate"):
        plan_for(traffic(sample=lambda: at_once))


def test_prefixes_that_come_back_are_part_of_the_demand():
    prefix = PrefixBlocks(np.array([1, 2, 3, 1, 2, 4]), np.array([0, 3, 6]), 16)
    twice = sample([48, 48], [10, 10], prefix=prefix)
    demand = demand_for(traffic(sample=lambda: twice, follow_prefixes=True))
    assert demand.reuse is not None
    assert demand.reuse.followed
    assert (demand.arrivals_per_s * (demand.prompt_tokens - demand.new_prompt_tokens)).sum() == pytest.approx(32)
    assert demand_for(traffic(sample=lambda: replace(twice, prefix=None))).reuse is None


def test_a_mixed_fleet_is_planned_as_its_slowest_instance_and_of_these_the_smallest():
    slow = replace(FACTS, kind=InstanceKind("old", "h20", "both", 1, 0.5))
    small = replace(slow, kv_tokens=FACTS.kv_tokens // 2)
    assert planned_as((FACTS, slow, small, FACTS)) is small
    assert capacity_of(small).kv_tokens == FACTS.kv_tokens // 2
