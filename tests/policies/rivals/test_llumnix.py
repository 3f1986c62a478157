"""Llumnix: remaining steps, pairs, and the messages between coordinator and agents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from l4sim.policies.agent import (
    COORDINATOR,
    FRONT_END,
    Draining,
    Instruction,
    Migrate,
    MigrationEnded,
    Received,
    Send,
    SetTimer,
    Started,
    TimerFired,
)
from l4sim.policies.rivals.llumnix import (
    LlumnixAgent,
    LlumnixCoordinator,
    LlumnixRouter,
    Loads,
    MoveOne,
    Report,
    pair,
    remaining_steps,
)
from l4sim.policies.views import DecodingRequest
from tests.policies.conftest import View, arrival, views


def report(
    steps: float, *, after_out: float = math.nan, after_in: float = math.nan, sending_to: int | None = None
) -> Report:
    return Report(steps, after_out, after_in, sending_to)


def timers(instructions: Sequence[Instruction]) -> list[float]:
    return [instruction.delay_s for instruction in instructions if isinstance(instruction, SetTimer)]


def sent(instructions: Sequence[Instruction]) -> list[Send]:
    return [instruction for instruction in instructions if isinstance(instruction, Send)]


# Dispatch.


def test_remaining_steps_are_infinite_without_requests():
    assert remaining_steps(30, 10) == 3
    assert remaining_steps(0, 0) == math.inf


def told(*steps: float) -> LlumnixRouter:
    """A router that has heard of these remaining steps."""
    router = LlumnixRouter(len(steps))
    router.receive(COORDINATOR, Loads(dict(enumerate(steps))), 0.06)
    return router


def test_dispatch_takes_the_most_remaining_steps_and_the_first_of_equals():
    assert told(10, 9, 11.1).route(arrival(), views(0, 0, 0)) == 2
    assert told(-4, math.inf, math.inf).route(arrival(), views(0, 0, 0)) == 1


def test_between_polls_dispatch_keeps_to_what_it_has_heard():
    router = told(10, 9, 8)
    assert [router.route(arrival(), views(running, 0, 0)) for running in (0, 500, 900)] == [0, 0, 0]
    router.receive(COORDINATOR, Loads({0: 2}), 0.11)
    assert router.route(arrival(), views(0, 0, 0)) == 1, "instance 1 is what it was"


def test_dispatch_passes_over_the_dead():
    assert told(10, 9, 8).route(arrival(), views(0, 0, 0)[1:]) == 0, "which is instance 1"


def test_before_the_first_poll_all_instances_pass_for_idle():
    assert LlumnixRouter(3).route(arrival(), views(5, 0, 0)) == 0


def test_one_that_joins_passes_for_idle_until_it_reports():
    router = told(10, 9)
    assert router.route(arrival(), views(0, 0, 0)) == 2
    router.receive(COORDINATOR, Loads({0: 10, 1: 9, 2: 3}), 0.11)
    assert router.route(arrival(), views(0, 0, 0)) == 0


def test_one_that_joins_for_one_that_left_is_told_from_it():
    router = told(9, 10)
    assert router.route(arrival(), views(0, 0)) == 1
    router.receive(COORDINATOR, Loads({0: 9, 2: 1}), 0.11)
    router.follow([0, 2])
    assert router.route(arrival(), [View(0), View(2)]) == 0


# Pairs.


def test_an_instance_that_drains_is_emptied_first_whatever_the_rule():
    agent = LlumnixAgent(1)
    agent.handle(Draining(2), View(1), 0.0)
    assert agent._report(View(1, running=1)).steps > 0, "another one drains"
    agent.handle(Draining(1), View(1), 0.0)
    leaving = agent._report(View(1, running=1))
    reports = {0: report(-50), 1: leaving, 2: report(60, after_in=50), 3: report(10, after_in=9)}
    assert pair(reports, "defrag") == [(1, 2), (0, 3)]
    assert pair(reports, "balanced")[0] == (1, 2)


def test_the_most_loaded_source_is_paired_with_the_least_loaded_destination():
    reports = {0: report(2), 1: report(50), 2: report(-4), 3: report(math.inf), 4: report(7)}
    assert pair(reports, "defrag") == [(2, 3), (0, 1)]


def test_three_steps_are_neither_source_nor_destination():
    assert pair({0: report(3), 1: report(1)}, "defrag") == []
    assert pair({0: report(3), 1: report(100)}, "defrag") == []


def test_an_instance_that_migrates_is_left_out_before_others_are_paired():
    reports = {0: report(-1, sending_to=4), 1: report(1), 2: report(60), 3: report(50), 4: report(40)}
    assert pair(reports, "defrag") == [(1, 2)], "as if 0 and 4 were not there"
    reports = {0: report(1), 1: report(4, sending_to=2), 2: report(60)}
    assert pair(reports, "defrag") == [], "2 is receiving"


@pytest.mark.parametrize(
    ("source_after", "destination", "destination_after", "paired"),
    [
        (1.5, 8.0, 3.0, True),
        (1.5, 8.0, 2.9, False),  # The destination would be short of blocks itself.
        (4.4, 5.0, 4.1, False),  # The gap of 4 would turn round.
        (1.1, 6.0, 6.2, False),  # The gap of 5 would widen.
        (math.inf, 8.0, 6.0, False),  # The source's only request would wander off to a worse place.
        (math.inf, math.inf, 60.0, True),  # An idle destination is always taken, ...
        (math.inf, math.inf, 2.9, False),  # ... unless the request would fill it up.
    ],
)
def test_balanced_narrows_the_gap_and_leaves_the_destination_three_steps(
    source_after: float, destination: float, destination_after: float, paired: bool
):
    reports = {0: report(1, after_out=source_after), 1: report(destination, after_in=destination_after)}
    assert pair(reports, "balanced") == [(0, 1)] * paired
    assert pair(reports, "defrag") == [(0, 1)]


# Messages.


def test_an_agent_reports_every_50_ms():
    agent = LlumnixAgent(0)
    own = View(kv_blocks_free=100, running=4, waiting=1, waiting_tokens=320, context_tokens=640)
    assert timers(agent.handle(Started(), own, 0.0)) == [0.05]
    instructions = agent.handle(TimerFired("report"), own, 0.05)
    # 100 - 320 / 16 = 80 blocks for 4 + 1 requests; of the 640 tokens, each of the 4 running has 10 blocks.
    assert sent(instructions) == [Send(COORDINATOR, Report(80 / 5, 90 / 4, 70 / 6, None))]
    assert timers(instructions) == [0.05]


def test_an_idle_instance_reports_infinitely_many_steps():
    (answer,) = sent(LlumnixAgent(0).handle(TimerFired("report"), View(kv_blocks_free=100), 0.05))
    assert answer.message == Report(math.inf, math.inf, 100, None)


def test_an_agent_migrates_its_shortest_request_one_at_a_time():
    agent = LlumnixAgent(0)
    own = View(running=3, batch=(DecodingRequest(7, 500), DecodingRequest(8, 90), DecodingRequest(9, 91)))
    assert agent.handle(Received(COORDINATOR, MoveOne(5)), own, 1.0) == (Migrate(8, 5, "rebalance"),)
    assert agent.handle(Received(COORDINATOR, MoveOne(6)), own, 1.1) == ()
    (answer,) = sent(agent.handle(TimerFired("report"), own, 1.2))
    assert answer.message.sending_to == 5
    agent.handle(MigrationEnded(8, 5, False, "the destination has no room"), own, 1.3)
    (answer,) = sent(agent.handle(TimerFired("report"), own, 1.4))
    assert answer.message.sending_to is None
    assert agent.handle(Received(COORDINATOR, MoveOne(6)), own, 1.5) == (Migrate(8, 6, "rebalance"),)


def test_an_agent_with_nothing_decoding_migrates_nothing():
    agent = LlumnixAgent(0)
    assert agent.handle(Received(COORDINATOR, MoveOne(5)), View(running=1), 1.0) == ()
    (answer,) = sent(agent.handle(TimerFired("report"), View(running=1), 1.2))
    assert answer.message.sending_to is None


def test_the_coordinator_acts_10_ms_after_the_reports_and_forgets_them():
    coordinator = LlumnixCoordinator()
    assert timers(coordinator.handle(Started(), 0.0)) == [pytest.approx(0.06)]
    coordinator.handle(Received(0, report(1)), 0.0505)
    coordinator.handle(Received(1, report(90)), 0.0505)
    instructions = coordinator.handle(TimerFired("round"), 0.06)
    assert sent(instructions) == [Send(FRONT_END, Loads({0: 1, 1: 90})), Send(0, MoveOne(1))]
    assert timers(instructions) == [0.05]
    coordinator.handle(Received(0, report(1)), 0.1005)
    alone = coordinator.handle(TimerFired("round"), 0.11)
    assert sent(alone) == [Send(FRONT_END, Loads({0: 1}))], "instance 1 has not reported since"
