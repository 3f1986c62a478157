from multiprocessing import Pipe
from queue import SimpleQueue

import numpy as np
import pytest

from l4sim.engine.request import Request
from validate_gpu.realtime.wire import Kv, Link, Lost, Submit


def linked():
    one, other = Pipe()
    inboxes = SimpleQueue(), SimpleQueue()
    return Link(one, 7, inboxes[0]), Link(other, 3, inboxes[1]), inboxes


def test_messages_keep_their_order_and_name_their_sender():
    here, _, (_, inbox) = linked()
    for number in range(3):
        here.send(number)
    assert [inbox.get(timeout=5) for _ in range(3)] == [(3, 0), (3, 1), (3, 2)]


@pytest.mark.slow
def test_both_sides_may_send_more_than_a_socket_holds():
    here, there, (inbox_here, inbox_there) = linked()
    payload = np.arange(2_000_000.0)
    here.send(Kv(1, 0, 5, payload))
    there.send(Kv(2, 0, 5, payload))
    assert inbox_here.get(timeout=20)[1].request == 2
    np.testing.assert_array_equal(inbox_there.get(timeout=20)[1].payload, payload)


def test_a_request_travels_with_its_state():
    here, _, (_, inbox) = linked()
    request = Request(4, 1.5, 20, 30, session=2)
    request.generated_tokens, request.last_token_s, request.migrations = 12, 3.25, 1
    here.send(Submit(request))
    received = inbox.get(timeout=5)[1].request
    assert (received.index, received.total_tokens, received.session) == (4, 32, 2)
    assert (received.last_token_s, received.migrations) == (3.25, 1)


def test_the_end_of_the_other_side_is_told():
    one, other = Pipe()
    inbox = SimpleQueue()
    link = Link(other, 3, inbox)
    one.close()
    assert inbox.get(timeout=5) == (3, Lost())
    link.send("too late")
    assert inbox.get(timeout=5) == (3, Lost())
    link.close(5.0)
    assert other.closed
