"""Llumnix: remaining steps, pairs, and the messages between coordinator and agents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from l4sim.policies.agent import (
    COORDINATOR,
    FRONT_END,
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


def idle(free_blocks: float = 1000) -> Report:
    return Report(free_blocks, requests=0, mean_blocks=0, sending_to=None)


def report(steps: float, requests: int = 10, mean_blocks: float = 20, sending_to: int | None = None) -> Report:
    """An instance with this many remaining steps."""
    return Report(steps * requests, requests, mean_blocks, sending_to)


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


def test_before_the_first_poll_all_instances_pass_for_idle():
    assert LlumnixRouter(3).route(arrival(), views(5, 0, 0)) == 0


# Pairs.


def test_the_most_loaded_source_is_paired_with_the_least_loaded_destination():
    reports = {0: report(2), 1: report(50), 2: report(-4), 3: idle(), 4: report(7)}
    assert pair(reports, "defrag") == [(2, 3), (0, 1)]


def test_three_steps_are_neither_source_nor_destination():
    assert pair({0: report(3), 1: report(1)}, "defrag") == []
    assert pair({0: report(3), 1: report(100)}, "defrag") == []


def test_an_instance_that_migrates_is_passed_over_at_both_ends():
    reports = {0: report(-1, sending_to=4), 1: report(1), 2: report(60), 3: report(50), 4: report(40)}
    assert pair(reports, "defrag") == [(1, 3)], "0 is paired with 2, and passed over"
    reports = {0: report(1), 1: report(4, sending_to=2), 2: report(60)}
    assert pair(reports, "defrag") == [], "2 is receiving"


def test_balanced_wants_three_steps_left_at_the_destination():
    # After a request of 20 blocks has come: (95 - 20) / (19 + 1) = 3.75 against (75 - 20) / (24 + 1) = 2.2.
    assert pair({0: report(-10), 1: Report(95, 19, 20, None)}, "balanced") == [(0, 1)]
    assert pair({0: report(-10), 1: Report(75, 24, 20, None)}, "balanced") == []
    assert pair({0: report(-10), 1: Report(75, 24, 20, None)}, "defrag") == [(0, 1)]


def test_balanced_wants_the_gap_to_shrink_and_not_to_turn_round():
    # Source 20 / 10 = 2 steps, afterwards (20 + 20) / 9 = 4.4. Destination 50 / 10 = 5, afterwards 45 / 11 = 4.09.
    assert pair({0: report(2), 1: report(5, mean_blocks=5)}, "balanced") == []
    # Destination 80 / 10 = 8, afterwards 75 / 11 = 6.8: the gap of 6 becomes 2.4.
    assert pair({0: report(2), 1: report(8, mean_blocks=5)}, "balanced") == [(0, 1)]


def test_balanced_always_takes_an_idle_destination():
    # The source's only request goes: infinitely many steps are left there, which would turn the gap round.
    assert pair({0: report(1, requests=1), 1: idle()}, "balanced") == [(0, 1)]


# Messages.


def test_an_agent_reports_every_50_ms():
    agent = LlumnixAgent()
    own = View(kv_blocks_free=100, running=4, waiting=1, waiting_tokens=320, context_tokens=640)
    assert timers(agent.handle(Started(), own, 0.0)) == [0.05]
    instructions = agent.handle(TimerFired("report"), own, 0.05)
    # 100 - 320 / 16 blocks; 640 tokens of 4 requests are 10 blocks each.
    assert sent(instructions) == [Send(COORDINATOR, Report(80, 5, 10, None))]
    assert timers(instructions) == [0.05]


def test_an_agent_migrates_its_shortest_request_one_at_a_time():
    agent = LlumnixAgent()
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
    agent = LlumnixAgent()
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
