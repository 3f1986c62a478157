import itertools
from queue import SimpleQueue

from validate_gpu.realtime.clock import WallClock


def test_moments_come_in_order_and_equal_ones_in_the_order_of_asking():
    clock, called = WallClock(0.0, itertools.count(step=1e-3).__next__), []
    clock.at(0.005, lambda due: called.append(due.value), "b")
    clock.at(0.002, lambda due: called.append(due.value), "a")
    clock.at(0.005, lambda due: called.append(due.value), "c")
    clock.at(0.006, lambda due: clock.stop())
    clock.serve(SimpleQueue(), called.append)
    assert called == ["a", "b", "c"]


def test_messages_are_delivered_before_what_is_due():
    clock, called, inbox = WallClock(0.0, lambda: 100.0), [], SimpleQueue()
    clock.at(1.0, lambda due: called.append("first action"))

    def last(due):
        called.append("last action")
        clock.stop()

    clock.at(2.0, last)
    inbox.put("one message")
    inbox.put("another message")
    clock.serve(inbox, called.append)
    assert called == ["one message", "another message", "first action", "last action"]


def test_time_counts_from_the_epoch():
    assert WallClock(40.0, lambda: 42.5).now_s == 2.5


def test_a_message_can_end_the_wait_for_nothing():
    clock, inbox = WallClock(0.0), SimpleQueue()
    inbox.put("stop")
    clock.serve(inbox, lambda message: clock.stop())
