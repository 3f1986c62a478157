"""Planning anew: what agents tell, when the coordinator acts on it, and what everybody does with a new plan."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.cost.affine import AffineCost
from l4sim.policies.agent import (
    COORDINATOR,
    FRONT_END,
    Draining,
    Finished,
    InstanceUp,
    Left,
    PeerDied,
    Received,
    ReportFinished,
    Send,
    SetTimer,
    Started,
    TimerFired,
    Watch,
)
from l4sim.policies.l4.agent import LEAVE_EVERY_S, LEVELS, L4Agent, ReportTime
from l4sim.policies.l4.demand import geometric_edges, measure_demand
from l4sim.policies.l4.handover import Retry
from l4sim.policies.l4.messages import Boundary, Lengths, NewPlan
from l4sim.policies.l4.partition import forecast, partition
from l4sim.policies.l4.qoe import Capacity
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.refinement import GENERATION
from l4sim.policies.l4.replan import PERIOD_S, PERIODS, SAMPLE, FinishedSample, Planning, Replanner
from l4sim.policies.l4.router import L4Router
from l4sim.policies.plan import Plan, Stage
from l4sim.policies.views import DecodingRequest
from tests.policies.conftest import View, arrival, views
from tests.policies.l4.protocol import THREE_STAGES, sent, timers

MAX_MODEL_LEN = 16384
COST = AffineCost(base_s=0.005, per_sequence_s=1e-4, per_prefill_token_s=1e-4, per_context_token_s=1e-7)
PLANNING = Planning(COST, Capacity(kv_tokens=400_000, max_num_seqs=256, max_num_batched_tokens=2048), MAX_MODEL_LEN)
SHORT, LONG = (200, 0, 100), (8000, 0, 100)
"""Prompt, cached and output tokens."""


def planned(short_per_s: float, long_per_s: float, stages: int = 2):
    """The partition of 8 instances for so many short and long requests."""
    prompt, _, output = np.array([SHORT, LONG]).T
    rates = np.array([short_per_s, long_per_s])
    demand = measure_demand(prompt, output, rates, geometric_edges(MAX_MODEL_LEN))
    return partition(demand, COST, PLANNING.capacity, 8, stages=stages)


def looked(replanner: Replanner, *periods: list[Lengths]) -> list:
    """What the coordinator does at the end of the last of some periods, in which instances report so."""
    instructions: list = []
    for reports in periods:
        for instance, report in enumerate(reports):
            assert not replanner.handle(Received(instance, report), 0.0)
        instructions = list(replanner.handle(TimerFired("look"), 0.0))
        assert timers(instructions) == [SetTimer(PERIOD_S, "look")]
    return sent(instructions)


def minute(short: int, long: int) -> list[Lengths]:
    """A period's reports: an instance of each kind."""
    return [Lengths(short, (SHORT,) * min(short, 4)), Lengths(long, (LONG,) * min(long, 4))]


def test_a_report_is_a_fair_sample_of_what_has_ended_since_the_one_before():
    sample = FinishedSample(np.random.default_rng(0))
    for prompt in range(10 * SAMPLE):
        sample.add(Finished(prompt, 0, 5))
    [(to, report)] = sample.report()
    assert (to, report.requests, len(set(report.sample))) == (COORDINATOR, 10 * SAMPLE, SAMPLE)
    mean = np.mean([prompt for prompt, _, _ in report.sample])
    assert mean == pytest.approx(5 * SAMPLE, rel=0.2), "as likely from the end as from the beginning"
    assert sample.report() == (Send(COORDINATOR, Lengths(0, ())),)


def test_traffic_as_planned_for_changes_nothing_and_nobody_is_told():
    rates = planned(20.0, 2.0)
    assert looked(Replanner(rates, PLANNING), *[minute(1200, 120)] * PERIODS) == []


def test_other_traffic_makes_another_plan_of_as_many_stages_which_everybody_is_told():
    first = planned(40.0, 0.5)
    news = looked(Replanner(first, PLANNING), *[minute(600, 300)] * PERIODS)
    assert [send.to for send in news] == [FRONT_END, *range(8)]
    [(generation, plan, batches)] = {send.message for send in news}
    wanted = planned(10.0, 5.0)
    assert generation == 1
    assert [len(stage.instances) for stage in plan.stages] == [len(stage.instances) for stage in wanted.plan.stages]
    assert batches == pytest.approx([stage.batch for stage in wanted.forecasts], rel=0.1)
    assert len(first.plan.stages[0].instances) > len(plan.stages[0].instances)


def test_the_plan_in_force_is_told_again_every_period():
    replanner = Replanner(planned(40.0, 0.5), PLANNING)
    news = looked(replanner, *[minute(600, 300)] * PERIODS)
    assert looked(replanner, minute(600, 300)) == news


def test_nothing_is_planned_before_the_window_is_full_or_from_a_handful_of_requests():
    assert looked(Replanner(planned(40.0, 0.5), PLANNING), *[minute(600, 300)] * (PERIODS - 1)) == []
    assert looked(Replanner(planned(40.0, 0.5), PLANNING), *[minute(20, 10)] * PERIODS) == []


def test_lengths_that_no_longer_part_into_so_many_ranges_leave_the_plan_alone():
    assert looked(Replanner(planned(40.0, 0.5), PLANNING), *[minute(600, 0)] * PERIODS) == []


def test_the_dead_get_no_place_and_no_message():
    replanner = Replanner(planned(40.0, 0.5), PLANNING)
    replanner.handle(PeerDied(2), 0.0)
    news = looked(replanner, *[minute(600, 300)] * PERIODS)
    assert [send.to for send in news] == [FRONT_END, 0, 1, 3, 4, 5, 6, 7]
    assert sorted(i for stage in news[0].message.plan.stages for i in stage.instances) == [0, 1, 3, 4, 5, 6, 7]


def test_who_has_joined_gets_a_place_and_who_drains_none():
    replanner = Replanner(planned(40.0, 0.5), PLANNING)
    replanner.handle(InstanceUp(8), 0.0)
    replanner.handle(Draining(2), 0.0)
    replanner.handle(Left(2), 0.0)
    news = looked(replanner, *[minute(600, 300)] * PERIODS)
    assert sorted(send.to for send in news) == [FRONT_END, 0, 1, 3, 4, 5, 6, 7, 8]
    assert sorted(i for stage in news[0].message.plan.stages for i in stage.instances) == [0, 1, 3, 4, 5, 6, 7, 8]
    replanner.handle(InstanceUp(9), 0.0)
    again = looked(replanner, minute(600, 300))
    assert sorted(send.to for send in again) == [FRONT_END, 0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert again[0].message == news[0].message, "who joins later is told of it, and takes a place by itself"


def test_a_stage_that_has_died_out_is_manned_again():
    first = planned(40.0, 0.5)
    replanner = Replanner(first, PLANNING)
    for instance in first.plan.stages[1].instances:
        replanner.handle(PeerDied(instance), 0.0)
    [stages] = {send.message.plan.stages for send in looked(replanner, *[minute(600, 60)] * PERIODS)}
    assert len(stages) == 2
    assert sorted(i for stage in stages for i in stage.instances) == list(first.plan.stages[0].instances)


def test_a_plan_s_forecast_is_the_one_that_it_was_chosen_by():
    made = planned(10.0, 5.0)
    prompt, _, output = np.array([SHORT, LONG]).T
    demand = measure_demand(prompt, output, np.array([10.0, 5.0]), geometric_edges(MAX_MODEL_LEN))
    assert forecast(made.plan, demand, COST, PLANNING.capacity) == made


# What the others do with it.

MOVED = NewPlan(1, Plan((Stage(0, 300, (0, 1)), Stage(300, 2000, (2,)), Stage(2000, 4000, (3,)))), (2.0, 2.0, 2.0))


def agent(instance: int) -> L4Agent:
    return L4Agent(instance, Ranges(THREE_STAGES), (2.0, 2.0, 2.0), parts=LEVELS["replan"])


def test_an_agent_asks_to_be_told_of_ends_and_reports_them():
    started = agent(1).handle(Started(), View(1), 0.0)
    assert ReportFinished() in started
    assert SetTimer(PERIOD_S, ReportTime()) in timers(started)
    member = agent(1)
    assert member.handle(Finished(10, 4, 3), View(1), 1.0) == ()
    assert member.handle(TimerFired(ReportTime()), View(1), 60.0) == (
        Send(COORDINATOR, Lengths(1, ((10, 4, 3),))),
        SetTimer(PERIOD_S, ReportTime()),
    )


def test_an_agent_in_another_stage_lets_go_one_by_one_of_what_is_too_long_for_it():
    batch = tuple(DecodingRequest(request, tokens) for request, tokens in ((5, 900), (6, 150), (7, 301), (8, 300)))
    member = agent(1)
    assert member.handle(Received(COORDINATOR, MOVED), View(1, batch=batch), 1.0) == (
        Watch(300),
        SetTimer(LEAVE_EVERY_S, Retry(5)),
        SetTimer(2 * LEAVE_EVERY_S, Retry(7)),
    )
    asks = sent(member.handle(TimerFired(Retry(5)), View(1, batch=batch), 1.1))
    assert [ask.to for ask in asks] == [2]
    assert member.handle(Received(COORDINATOR, MOVED), View(1, batch=batch), 2.0) == (), "it is not news any more"


def test_an_agent_that_comes_into_the_last_stage_watches_nothing_any_more():
    last = MOVED._replace(plan=Plan((Stage(0, 100, (0,)), Stage(100, 1000, (3,)), Stage(1000, 4000, (1, 2)))))
    assert agent(1).handle(Received(COORDINATOR, last), View(1), 1.0) == (Watch(None),)


def test_boundaries_of_an_older_plan_that_come_late_are_not_taken_over():
    member = agent(1)
    member.handle(Received(COORDINATOR, MOVED), View(1), 1.0)
    assert member.handle(Received(2, Boundary(0, 99, 50)), View(1), 1.1) == ()
    assert Watch(310) in member.handle(Received(2, Boundary(0, GENERATION + 1, 310)), View(1), 1.2)


def test_the_router_goes_by_the_new_plan_without_the_dead_and_its_boundaries_are_on_record():
    router = L4Router(THREE_STAGES, spill=False)
    living = [view for view in views(0, 1, 0, 0) if view.instance != 2]
    assert router.route(arrival(250), living) == 1
    router.receive(COORDINATOR, MOVED, 60.0)
    assert router.route(arrival(250), living) == 0
    assert router.route(arrival(500), living) == 2, "nobody is left of its own stage, so the next one above takes it"
    assert router.moves == [(60.0, 0, 300), (60.0, 1, 2000)]
