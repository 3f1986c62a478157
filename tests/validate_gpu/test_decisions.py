"""What a policy decided is asked of a fresh one again: equal, unless it knows more than its views and stimuli."""

import dataclasses

import pytest

from l4sim.policies.agent import COORDINATOR, Received, Send, SetTimer, Started, TimerFired
from l4sim.policies.policy import Policy
from l4sim.policies.routers import LeastOutstanding, RoundRobin
from l4sim.policies.views import RequestView
from validate_gpu.decisions import Asked, Heard, Routed, record_decisions, replay_decisions


@dataclasses.dataclass
class View:
    """An instance that changes between calls."""

    instance: int
    running: int = 0
    waiting: int = 0

    def find(self, request):
        return request if request < 10 else None


def request(number):
    return RequestView(number, 100, -1, (), 100)


class Sees:
    """Sends on what it finds of its view."""

    def handle(self, stimulus, own, now_s):
        match stimulus:
            case Started():
                return (SetTimer(0.5, "look"),)
            case TimerFired():
                return [Send(COORDINATOR, (own.running, own.find(3), own.find(12)))]
        return ()


class Counts:
    """A coordinator that numbers its messages."""

    def __init__(self):
        self.number = 0

    def handle(self, stimulus, now_s):
        self.number += 1
        return (Send(0, self.number),)


class Remembers:
    """Routes to the instance that it was last told."""

    def __init__(self):
        self.choice = 0

    def route(self, request, instances):
        return self.choice

    def receive(self, sender, message, now_s):
        self.choice = message


def test_routing_is_recorded_with_what_was_read_of_every_view_then():
    calls = []
    router = record_decisions(Policy(LeastOutstanding()), calls).router
    views = [View(0, running=2), View(1, running=1)]
    assert router.route(request(7), views) == 1
    views[1].running = 5
    assert router.route(request(8), views) == 0
    read = ({"running": 2, "waiting": 0}, {"running": 1, "waiting": 0})
    assert calls[0] == Routed(request(7), read, 1)
    found = replay_decisions(calls, Policy(LeastOutstanding()))
    assert (found.routed, found.differing, found.equal_pct) == (2, 0, 100)


def test_agents_and_coordinator_are_asked_again_with_what_they_read():
    calls = []
    recorded = record_decisions(Policy(RoundRobin(), agents=(Sees(), Sees()), coordinator=Counts()), calls)
    recorded.agents[1].handle(Started(), View(1), 0.0)
    told = recorded.agents[1].handle(TimerFired("look"), View(1, running=4), 0.5)
    recorded.coordinator.handle(Received(1, told[0].message), 0.6)
    look = Asked(
        1, TimerFired("look"), {"running": 4, ("find", 3): 3, ("find", 12): None}, 0.5, (Send(-1, (4, 3, None)),)
    )
    assert calls[1] == look
    assert calls[2] == Asked(COORDINATOR, Received(1, (4, 3, None)), {}, 0.6, (Send(0, 1),))
    found = replay_decisions(calls, Policy(RoundRobin(), agents=(Sees(), Sees()), coordinator=Counts()))
    assert (found.stimuli, found.instructions, found.decisions, found.differing) == (3, 3, 3, 0)


def test_messages_to_a_router_are_part_of_what_it_knows():
    calls = []
    router = record_decisions(Policy(Remembers()), calls).router
    router.receive(0, 1, 0.1)
    router.route(request(0), [View(0), View(1)])
    assert calls[0] == Heard(0, 1, 0.1)
    assert replay_decisions(calls, Policy(Remembers())).differing == 0
    assert replay_decisions(calls[1:], Policy(Remembers())).differing == 1


def test_a_decision_that_differs_is_counted_and_the_first_is_told():
    calls = []
    router = record_decisions(Policy(RoundRobin()), calls).router
    for number in range(4):
        router.route(request(number), [View(0), View(1)])
    # The recorded policy is not fresh: it would go on with instance 1.
    used = RoundRobin()
    used.route(request(9), [View(0), View(1)])
    found = replay_decisions(calls, Policy(used))
    assert (found.decisions, found.differing, found.equal_pct) == (4, 4, 0)
    assert found.first_difference == "request 0: 0 live, 1 replayed"


def test_reading_what_the_live_policy_did_not_read_is_a_difference():
    calls = []
    router = record_decisions(Policy(RoundRobin()), calls).router
    router.route(request(0), [View(0), View(1)])
    found = replay_decisions(calls, Policy(LeastOutstanding()))
    assert found.first_difference.endswith("reads running, which the live policy did not replayed")


@pytest.mark.parametrize("policy", [Policy(RoundRobin()), Policy(LeastOutstanding())])
def test_no_decisions_are_all_equal(policy):
    assert replay_decisions([], policy).equal_pct == 100
