"""Transfers that share links, worked by hand: 100 bytes/s each way, 1 s of latency."""

from __future__ import annotations

import pytest

from l4sim.simulator.clock import SimulatedClock
from l4sim.simulator.transfers import Transfers
from l4sim.specs.link import Link
from l4sim.specs.placement import Placement

FAST, SLOW = Link("fast", bytes_per_s=100.0, latency_s=1.0), Link("slow", bytes_per_s=10.0, latency_s=2.0)


class Scene:
    """Begins and cancels transfers at given moments, and notes when each arrives."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.transfers = Transfers(self.clock, Placement(6, gpus_per_node=4, intra=FAST, inter=SLOW))
        self.begun, self.arrived = {}, {}

    def begin(self, at_s, name, source, destination, size_bytes):
        def start(_):
            self.begun[name] = self.transfers.begin(source, destination, size_bytes, self.arrive, name)

        self.clock.at(at_s, start)

    def cancel(self, at_s, name):
        self.clock.at(at_s, lambda _: self.transfers.cancel(self.begun[name]))

    def arrive(self, moment):
        self.arrived[moment.value] = self.clock.now_s

    def run(self):
        self.clock.run()
        return self.arrived


@pytest.fixture
def scene():
    return Scene()


def test_a_transfer_alone_takes_its_links_time(scene):
    scene.begin(1.0, "one", 0, 1, 500)
    assert scene.run() == pytest.approx({"one": 1.0 + FAST.transfer_s(500)})


def test_two_from_one_instance_go_at_half_speed_while_both_last(scene):
    # To 2 s "long" has sent 200; then both get 50/s: "short" sends its 100 to 4 s, when "long" has 200 left.
    scene.begin(0.0, "long", 0, 1, 500)
    scene.begin(2.0, "short", 0, 2, 100)
    assert scene.run() == pytest.approx({"short": 5.0, "long": 7.0})


def test_two_to_one_instance_share_its_incoming_side(scene):
    scene.begin(0.0, "a", 0, 2, 100)
    scene.begin(0.0, "b", 1, 2, 100)
    assert scene.run() == pytest.approx({"a": 3.0, "b": 3.0})


def test_both_directions_and_other_instances_do_not_disturb(scene):
    scene.begin(0.0, "there", 0, 1, 100)
    scene.begin(0.0, "back", 1, 0, 100)
    scene.begin(0.0, "others", 2, 3, 100)
    assert scene.run() == pytest.approx({"there": 2.0, "back": 2.0, "others": 2.0})


def test_links_within_and_between_nodes_are_not_the_same_one(scene):
    scene.begin(0.0, "within", 0, 1, 100)
    scene.begin(0.0, "between", 0, 4, 100)
    assert scene.run() == pytest.approx({"within": 2.0, "between": 12.0})


def test_a_transfer_goes_at_the_slower_of_its_two_shares(scene):
    # Three leave 0 at a third each, and one of them, to 3, meets another there: it is alone on its way out.
    scene.begin(0.0, "a", 0, 1, 100)
    scene.begin(0.0, "b", 0, 2, 100)
    scene.begin(0.0, "c", 0, 3, 100)
    scene.begin(0.0, "d", 1, 3, 200)
    # To 3 s a, b and c have sent 100 at 33.3/s and d 150 at 50/s; its last 50 go at full speed.
    assert scene.run() == pytest.approx({"a": 4.0, "b": 4.0, "c": 4.0, "d": 4.5})


def test_a_cancelled_transfer_frees_the_link_and_tells_nobody(scene):
    # Half speed to 1 s, when "gone" is called off: 50 sent, 150 left.
    scene.begin(0.0, "stays", 0, 1, 200)
    scene.begin(0.0, "gone", 0, 2, 900)
    scene.cancel(1.0, "gone")
    assert scene.run() == pytest.approx({"stays": 3.5})


def test_a_transfer_may_be_cancelled_while_its_last_byte_is_under_way(scene):
    scene.begin(0.0, "gone", 0, 1, 100)
    scene.cancel(1.5, "gone")
    scene.begin(1.5, "next", 0, 1, 100)
    assert scene.run() == pytest.approx({"next": 3.5})


def test_nothing_to_send_takes_the_latency(scene):
    scene.begin(0.0, "empty", 0, 1, 0)
    assert scene.run() == pytest.approx({"empty": 1.0})
