"""Boundaries between stages: when they move, how far, and who hears of it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l4sim.policies.agent import FRONT_END, Send
from l4sim.policies.l4.messages import Boundary, Report, Summary
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.refinement import Refinement
from l4sim.policies.plan import Plan, Stage
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, sent, two_stages


def refinement(instance: int, plan: Plan = THREE_STAGES, ranges: Ranges | None = None) -> Refinement:
    """A part that expects two requests per instance of every stage."""
    return Refinement(instance, ranges or Ranges(plan), [2.0] * len(plan.stages), np.random.default_rng(instance))


def end_after(lower: float, upper: float | None, plan: Plan = THREE_STAGES, stage: int = 0) -> int:
    """Where a stage ends after a period with these pressures in it and above."""
    ranges = Ranges(plan)
    leader = refinement(plan.stages[stage].instances[0], plan, ranges)
    leader.sample(View(running=round(2 * lower)))
    if upper is not None:
        leader.summarised(Summary(stage + 1, upper))
    leader.period()
    return ranges.range_of(stage)[1]


# How far.


@pytest.mark.parametrize(
    ("lower", "upper", "hi_tokens"),
    [
        # 0.1 · ln(1.6 / 1.1) = 3.7 %.
        (1.5, 1.0, 96),
        (1.0, 1.5, 104),
        # 5 % at most.
        (5.0, 1.0, 95),
        (1.0, 9.0, 105),
        # The ratio of 1.1 / 0.9 is within the hysteresis.
        (1.0, 0.8, 100),
        (1.0, 1.2, 100),
        # Nothing to gain where both are nearly idle, nor without news from above.
        (0.0, 0.4, 100),
        (5.0, None, 100),
    ],
)
def test_a_boundary_moves_towards_the_fuller_stage_in_small_steps(lower, upper, hi_tokens):
    assert end_after(lower, upper) == hi_tokens


@pytest.mark.parametrize(
    ("bounds", "pressures", "hi_tokens"),
    [
        # Of [105, 120) a tenth of 105 is left: down to 114 would be too much.
        ((105, 120, 400), (5.0, 1.0), 116),
        # A range narrower than that stays as it is, and is not widened by a step that is to narrow it.
        ((105, 110, 400), (5.0, 1.0), 110),
        # [110, 121) above keeps a tenth of 110: up to 112 would be too much.
        ((100, 107, 122), (1.0, 5.0), 110),
        ((100, 111, 122), (1.0, 5.0), 111),
    ],
)
def test_no_step_lets_a_range_vanish(bounds, pressures, hi_tokens):
    ends = (0, *bounds)
    plan = Plan(tuple(Stage(lo, hi, (n,)) for n, (lo, hi) in enumerate(pairwise(ends))))
    assert end_after(*pressures, plan=plan, stage=1) == hi_tokens


def test_what_was_heard_from_above_moves_a_boundary_once():
    ranges = Ranges(THREE_STAGES)
    leader = refinement(0, ranges=ranges)
    leader.sample(View(running=10))
    leader.summarised(Summary(1, 1.0))
    for _ in range(3):
        leader.period()
    assert ranges.boundary(0) == Boundary(0, 1, 95)


# Who says what.


def test_members_report_to_their_leader_and_leaders_to_the_leader_below():
    member, leader, top = (refinement(instance) for instance in (2, 1, 3))
    member.sample(View(running=3, waiting=1))
    assert member.period() == [Send(1, Report(4.0))]
    leader.sample(View(running=1))
    leader.reported(2, Report(4.0))
    # (1 + 4) / 2 requests, where 2 were expected.
    assert leader.period() == [Send(0, Summary(1, 1.25))]
    assert leader.period() == [Send(0, Summary(1, 0.5))], "a report counts in its period"
    assert top.period() == [Send(1, Summary(2, 0.0))]


def test_loads_are_smoothed():
    member = refinement(2)
    for running in (0, 10, 10):
        member.sample(View(running=running))
    # 0, then 3, then 3 + 0.3 · 7.
    assert member.period() == [Send(1, Report(pytest.approx(5.1)))]


def test_a_move_is_told_to_peers_the_next_leader_and_the_front_end_and_repeated():
    plan = two_stages(2, 2)
    leader = refinement(0, plan)
    leader.sample(View(running=10))
    leader.summarised(Summary(1, 1.0))
    news = Boundary(0, 1, 95)
    assert leader.period() == [Send(1, news), Send(2, news), Send(FRONT_END, news)]
    assert leader.period() == [Send(1, news), Send(2, news), Send(FRONT_END, news)]
    ranges = Ranges(plan)
    ranges.apply(news)
    upper = refinement(2, plan, ranges)
    assert upper.spread(news) == [Send(3, news)]
    assert upper.period() == [Send(3, news), Send(0, Summary(1, 0.0))], "its lower end it repeats as well"


def test_a_new_leader_speaks_for_the_stage():
    ranges = Ranges(THREE_STAGES)
    ranges.remove(1)
    heir = refinement(2, ranges=ranges)
    heir.reported(1, Report(100.0))
    assert heir.period() == [Send(0, Summary(1, 0.0))], "and leaves out what the dead one had said"


def test_a_new_leader_s_boundary_overrules_whatever_the_dead_one_had_told():
    # Instance 2 takes over stage 1 from instance 1, of whose last move only others have heard.
    ranges, told = Ranges(THREE_STAGES), Boundary(1, 40, 777)
    heir = refinement(2, THREE_STAGES, ranges)
    ranges.remove(1)
    [own] = [send.message for send in sent(heir.period()) if send.to == FRONT_END]
    assert own.hi_tokens == 1000
    assert own > told
    ranges.apply(own._replace(version=own.version + 3))
    [repeated] = [send.message for send in sent(heir.period()) if send.to == FRONT_END]
    assert repeated.version == own.version + 3


def test_a_dead_stage_is_passed_over():
    bottom, top = Ranges(THREE_STAGES), Ranges(THREE_STAGES)
    for instance in (1, 2):
        bottom.remove(instance)
        top.remove(instance)
    [summary] = refinement(3, ranges=top).period()
    assert summary == Send(0, Summary(2, 0.0))
    leader = refinement(0, ranges=bottom)
    leader.sample(View(running=10))
    leader.summarised(Summary(1, 0.0))
    leader.period()
    assert bottom.range_of(0)[1] == 100, "the dead stage has nothing to say"
    leader.summarised(summary.message)
    assert Send(3, Boundary(0, 1, 95)) in leader.period()


# Large stages.


def run_period(
    plan: Plan, copies: dict[int, Ranges], parts: dict[int, Refinement], running: int, sends: Counter
) -> None:
    """One period of everybody, all messages delivered at once; counts what each instance sends."""
    for instance, part in parts.items():
        part.sample(View(running=running if instance in plan.stages[0].instances else 2))
        queue = [(instance, send) for send in sent(part.period())]
        while queue:
            sender, send = queue.pop(0)
            sends[sender] += 1
            match send.message:
                case Report() as report:
                    parts[send.to].reported(sender, report)
                case Summary() as summary:
                    parts[send.to].summarised(summary)
                case Boundary() as boundary:
                    if send.to in parts and copies[send.to].apply(boundary):
                        queue += [(send.to, more) for more in sent(parts[send.to].spread(boundary))]


@pytest.mark.slow
def test_what_an_instance_sends_and_how_many_report_does_not_grow_with_its_stage():
    busiest = {}
    for size in (4, 256):
        plan = two_stages(size, size)
        copies = {instance: Ranges(plan) for instance in range(2 * size)}
        parts = {instance: refinement(instance, plan, copies[instance]) for instance in copies}
        sends = Counter()
        for _ in range(20):
            run_period(plan, copies, parts, 10, sends)
        busiest[size] = max(sends.values()) / 20
        told = [copy.boundary(0) for copy in copies.values()]
        assert np.mean([boundary == copies[0].boundary(0) for boundary in told]) > 0.9, "rumours reach nearly everybody"
    assert busiest[256] <= 1.3 * busiest[4]
    plan = two_stages(256, 1)
    reports = [send for instance in range(256) for send in sent(refinement(instance, plan).period())]
    assert 2 <= len(reports) <= 16


# Faulty networks.


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@example(293225, 0.75)  # a leader dies whose last boundary nobody but the leader above has heard
def test_every_copy_tiles_always_and_all_agree_once_the_network_has_healed(seed, loss):
    """Messages get lost, doubled and late for 30 periods of changing loads; the last 60 periods are quiet."""
    rng = np.random.default_rng(seed)
    plan = Plan(
        (Stage(0, 100, (0, 1, 2)), Stage(100, 1000, (3, 4)), Stage(1000, 2000, (5,)), Stage(2000, 4000, (6, 7)))
    )
    copies = {instance: Ranges(plan) for instance in range(8)}
    parts = {instance: refinement(instance, plan, copies[instance]) for instance in copies}
    front_end = Ranges(plan)
    late: list[tuple[int, Send]] = []

    def deliver(sender: int, send: Send) -> None:
        match send.message:
            case Report() as report:
                parts[send.to].reported(sender, report)
            case Summary() as summary:
                parts[send.to].summarised(summary)
            case Boundary() as boundary:
                if (front_end if send.to == FRONT_END else copies[send.to]).apply(boundary) and send.to != FRONT_END:
                    post(send.to, sent(parts[send.to].spread(boundary)), healed=True)

    def post(sender: int, sends: list[Send], *, healed: bool) -> None:
        for send in sends:
            if healed or rng.random() >= loss:
                deliver(sender, send)
                if not healed and rng.random() < 0.3:
                    late.append((sender, send))

    dead = int(rng.integers(8)) if rng.random() < 0.5 else None
    for period in range(90):
        healed = period >= 30
        if period == 15 and dead is not None:
            del parts[dead], copies[dead]
            for ranges in (front_end, *copies.values()):
                ranges.remove(dead)
        for instance in rng.permutation(list(parts)):
            parts[instance].sample(View(running=2 if healed else int(rng.integers(9))))
            post(instance, sent(parts[instance].period()), healed=healed)
        overdue, late = late, []
        for sender, send in overdue:
            if send.to in (*parts, FRONT_END):
                deliver(sender, send)
        for ranges in copies.values():
            tiles = [ranges.range_of(stage) for stage in range(4)]
            assert (tiles[0][0], tiles[-1][1]) == (0, 4000)
            assert all(below[1] == above[0] for below, above in pairwise(tiles))
    for instance, ranges in copies.items():
        own = ranges.stage_of_instance(instance)
        for stage in range(max(own - 1, 0), min(own + 1, 3)):
            if front_end.members(stage):
                assert ranges.boundary(stage) == front_end.boundary(stage)
