import time
from array import array
from queue import SimpleQueue

import numpy as np
import pytest

from l4sim.policies.agent import COORDINATOR, FRONT_END, Received, Send, SetTimer, Started, TimerFired
from l4sim.policies.policy import Policy
from l4sim.policies.routers import LeastOutstanding, RoundRobin
from l4sim.records import SegmentRow
from tests.simulator.conftest import make_trace, requests
from tests.validate_gpu.live.small import engine_config
from validate_gpu.realtime.clock import WallClock
from validate_gpu.realtime.front_end import RealtimeFrontEnd, ReportedView
from validate_gpu.realtime.wire import Deliver, Ended, Failed, Lost, Records, Report, Stop, Submit

ROW = array("d", range(len(SegmentRow._fields))).tobytes()


class Worker:
    """The other end of a link: answers requests at once, unless told to fail."""

    def __init__(self, number, inbox, fails=None):
        self.number = number
        self.inbox = inbox
        self.fails = fails
        self.received = []

    def send(self, message):
        self.received.append(message)
        match message:
            case Submit(_) if self.fails is not None:
                self.inbox.put((self.number, self.fails))
            case Submit(request):
                request.scheduled_s, request.first_token_s = request.arrival_s + 0.01, request.arrival_s + 0.02
                request.last_token_s = request.arrival_s + 0.1
                self.inbox.put((self.number, Ended(request)))
            case Stop():
                self.inbox.put((self.number, Records(ROW, [], 0, 3, [], [])))


def replay(trace, policy, failures=(None, None)):
    inbox = SimpleQueue()
    workers = [Worker(number, inbox, failure) for number, failure in enumerate(failures)]
    clock = WallClock(time.monotonic())
    front_end = RealtimeFrontEnd(trace, policy, engine_config(), dict(enumerate(workers)), clock)
    return front_end.run(inbox), workers


@pytest.mark.slow
def test_requests_are_routed_as_they_arrive_and_their_ends_recorded():
    result, workers = replay(make_trace([0.0, 0.05, 0.1], [5, 6, 7], [11, 1, 3]), Policy(RoundRobin()))
    table = requests(result)
    assert table["first_instance"].tolist() == [0, 1, 0]
    assert table["arrival_s"].tolist() == [0.0, 0.05, 0.1]
    np.testing.assert_allclose(table["e2e_s"], 0.1)
    np.testing.assert_allclose(table["tpot_s"], [0.008, np.nan, 0.04])
    assert [message.request.index for message in workers[0].received if isinstance(message, Submit)] == [0, 2]


def test_all_workers_records_are_collected():
    result, _ = replay(make_trace([0.0], [5], [2]), Policy(RoundRobin()))
    assert result.iterations.numbers.tobytes() == ROW * 2
    assert result.messages_sent == 6


@pytest.mark.slow
def test_a_sessions_next_turn_follows_its_answer():
    trace = make_trace([0.0, np.nan], [5, 6], [2, 2], after=[-1, 0], delay_s=[np.nan, 0.25])
    table = requests(replay(trace, Policy(RoundRobin()))[0])
    np.testing.assert_allclose(table["arrival_s"], [0.0, 0.35])


def test_what_no_instance_can_serve_is_rejected():
    result, _ = replay(make_trace([0.0, 0.0], [5, 300], [2, 2]), Policy(RoundRobin()))
    assert requests(result)["status"].tolist() == [0, 1]
    assert result.requests.words["reason"][1] == "prompt and output exceed max_model_len 256"


@pytest.mark.slow
def test_a_failure_ends_the_run_and_keeps_what_there_is():
    trace = make_trace([0.0, 0.05, 60.0], [5, 6, 7], [2, 2, 2])
    for failure, reason in (
        (Failed("out of memory"), "instance 1: out of memory"),
        (Lost(), "instance 1: its process has ended"),
    ):
        result, workers = replay(trace, Policy(RoundRobin()), (None, failure))
        assert requests(result)["status"].tolist() == [0, 2, 2]
        assert result.requests.words["reason"] == ("", reason)
        # The worker that is left is asked at once, and does not wait for its peer.
        assert workers[0].received[-1] == Stop(at_once=True)
        assert result.iterations.numbers.tobytes() == ROW


def test_requests_sent_count_until_the_next_report():
    trace = make_trace([0.0, 0.0, 0.0], [5, 6, 7], [2, 2, 2])
    assert requests(replay(trace, Policy(LeastOutstanding()))[0])["first_instance"].tolist() == [0, 1, 0]
    view = ReportedView(1, engine_config())
    view.sent(replay(trace, Policy(RoundRobin()))[1][0].received[0].request)
    assert (view.waiting, view.waiting_tokens, view.kv_blocks_free) == (1, 5, 40)
    view.update(Report(1, 2.5, 3, 0, 0, 0, 90, 12, 40, 4))
    assert (view.as_of_s, view.running, view.waiting, view.kv_blocks_free) == (2.5, 3, 0, 12)


class Coordinator:
    """Sets a timer, then writes to an instance and to the router."""

    def __init__(self):
        self.heard = []

    def handle(self, stimulus, now_s):
        self.heard.append(stimulus)
        match stimulus:
            case Started():
                return (SetTimer(0.01, "soon"),)
            case TimerFired():
                return (Send(1, "to an instance"), Send(FRONT_END, "to the router"))
        return ()


class ListeningRouter(RoundRobin):
    heard = ()

    def receive(self, sender, message, now_s):
        self.heard = (*self.heard, (sender, message))


@pytest.mark.slow
def test_a_coordinators_timers_and_messages():
    policy = Policy(ListeningRouter(), coordinator=Coordinator())
    _, workers = replay(make_trace([0.0, 0.2], [5, 5], [2, 2]), policy)
    assert policy.coordinator.heard == [Started(), TimerFired("soon")]
    assert policy.router.heard == ((COORDINATOR, "to the router"),)
    assert Deliver(1, COORDINATOR, "to an instance") in workers[1].received


def test_messages_from_agents_reach_the_coordinator_and_the_router():
    policy = Policy(ListeningRouter(), coordinator=Coordinator())
    inbox = SimpleQueue()
    workers = {0: Worker(0, inbox)}
    inbox.put((0, Deliver(COORDINATOR, 0, "load")))
    inbox.put((0, Deliver(FRONT_END, 0, "ranges")))
    clock = WallClock(time.monotonic())
    RealtimeFrontEnd(make_trace([0.0], [5], [2]), policy, engine_config(), workers, clock).run(inbox)
    assert Received(0, "load") in policy.coordinator.heard
    assert policy.router.heard == ((0, "ranges"),)
