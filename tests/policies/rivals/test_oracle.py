"""The oracle of output lengths, against sums worked out one request at a time."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.policies.rivals import oracle
from l4sim.policies.rivals.oracle import OracleLength
from l4sim.policies.views import RequestView
from tests.policies.conftest import View


class Cluster:
    """Instances on which each request is started and ended by hand, and the requests' true lengths."""

    def __init__(self, instances: int, lengths: list[tuple[int, int]]) -> None:
        self.lengths = lengths
        self.views = [View(instance=number) for number in range(instances)]
        self.router = OracleLength(instances, [output for _, output in lengths])

    def place(self, request: int) -> int:
        prompt_tokens = self.lengths[request][0]
        position = self.router.route(RequestView(request, prompt_tokens, -1, (), prompt_tokens), self.views)
        self.change(position, waiting=1)
        return position

    def change(self, position: int, *, running: int = 0, waiting: int = 0) -> None:
        view = self.views[position]
        self.views[position] = View(position, 0.0, view.running + running, view.waiting + waiting)

    def start(self, position: int) -> None:
        self.change(position, running=1, waiting=-1)

    def end(self, position: int) -> None:
        self.change(position, running=-1)


def added(own: tuple[int, int], others: list[tuple[int, int, int]]) -> float:
    """What a request adds, iteration by iteration; ``others`` are (context now, tokens left, output tokens)."""
    prompt, output = own
    total = 0.0
    for context, left, other_output in others:
        total += oracle._PROMPT_TOKEN_READS * prompt / other_output
        for iteration in range(min(left, output)):
            # The mean of the context at the iteration's start and end.
            total += (prompt + iteration + 0.5) / other_output + (context + iteration + 0.5) / output
    return total


def test_an_idle_instance_is_taken_first():
    cluster = Cluster(2, [(100, 10), (100, 10)])
    assert [cluster.place(request) for request in range(2)] == [0, 1]


def test_a_short_answer_shuns_the_long_context():
    cluster = Cluster(2, [(10_000, 200), (50, 100), (50, 100), (50, 100), (9_000, 300)])
    assert [cluster.place(request) for request in range(2)] == [0, 1]
    assert [cluster.place(request) for request in (2, 3)] == [1, 1], "beside the short one, though there are more"
    assert cluster.place(4) == 0, "the long prompt would hold up three short answers"


@pytest.mark.slow
def test_the_choice_is_the_least_sum_worked_out_by_hand():
    rng = np.random.default_rng(3)
    for _ in range(30):
        lengths = [(int(rng.integers(1, 3000)), int(rng.integers(1, 400))) for _ in range(9)]
        cluster = Cluster(3, lengths)
        placed: list[list[tuple[int, int, int]]] = [[], [], []]
        for request, (prompt, output) in enumerate(lengths):
            sums = [added((prompt, output), others) for others in placed]
            position = cluster.place(request)
            assert sums[position] == pytest.approx(min(sums))
            placed[position].append((prompt, output, output))


@pytest.mark.parametrize("output", [10, 60, 110, 400])
def test_progress_is_told_from_ends(output: int):
    prompt = 1000
    cluster = Cluster(2, [(3000, 150), (10, 40), (10, 100), (prompt, output)])
    assert [cluster.place(request) for request in range(3)] == [0, 1, 1]
    for position in (0, 1, 1):
        cluster.start(position)
    cluster.end(1)
    # Request 1 has ended, after 40 iterations: request 2 has 60 of its 100 tokens left. Of request 0 nothing is known.
    sums = [added((prompt, output), [(3000, 150, 150)]), added((prompt, output), [(50, 60, 100)])]
    np.testing.assert_allclose(cluster.router.costs(prompt, output, cluster.views), sums)


def test_requests_start_in_the_order_in_which_they_were_placed():
    cluster = Cluster(1, [(10, 50), (10, 20), (10, 30)])
    for request in range(3):
        cluster.place(request)
    cluster.start(0)
    cluster.start(0)
    cluster.end(0)
    # The second was the shorter of the two that ran: 30 tokens of the first are left, and all of the third.
    expected = added((100, 40), [(30, 30, 50), (10, 30, 30)])
    np.testing.assert_allclose(cluster.router.costs(100, 40, cluster.views), [expected])


def test_a_preempted_request_is_not_taken_for_ended():
    cluster = Cluster(1, [(10, 50), (10, 20)])
    for request in range(2):
        cluster.place(request)
        cluster.start(0)
    before = cluster.router.costs(100, 40, cluster.views)
    cluster.change(0, running=-1, waiting=1)
    np.testing.assert_array_equal(cluster.router.costs(100, 40, cluster.views), before)


def test_many_requests_come_and_go():
    lengths = [(100, 10 + request) for request in range(300)]
    cluster = Cluster(2, lengths)
    for request in range(300):
        cluster.start(cluster.place(request))
    for position in (0, 1):
        while cluster.views[position].running:
            cluster.end(position)
    np.testing.assert_array_equal(cluster.router.costs(100, 40, cluster.views), [0, 0])


def test_what_a_dead_instance_held_weighs_no_more_and_may_be_placed_again():
    cluster = Cluster(3, [(100, 10), (10_000, 500), (200, 20), (100, 10)])
    assert [cluster.place(request) for request in range(3)] == [0, 1, 2]
    del cluster.views[0]
    cluster.router.follow([1, 2])
    expected = [added((100, 10), [(10_000, 500, 500)]), added((100, 10), [(200, 20, 20)])]
    np.testing.assert_allclose(cluster.router.costs(100, 10, cluster.views), expected)
    request = RequestView(0, 100, -1, (), 100)
    assert cluster.router.route(request, cluster.views) == int(np.argmin(expected))


def test_one_that_joins_is_idle_and_what_the_others_have_done_stays_known():
    cluster = Cluster(2, [(3000, 150), (10, 40), (10, 100), (1000, 60)])
    assert [cluster.place(request) for request in range(3)] == [0, 1, 1]
    for position in (0, 1, 1):
        cluster.start(position)
    cluster.end(1)
    before = cluster.router.costs(1000, 60, cluster.views)
    cluster.views.append(View(2))
    cluster.router.follow([0, 1, 2])
    np.testing.assert_array_equal(cluster.router.costs(1000, 60, cluster.views), [*before, 0])
    assert cluster.place(3) == 2


def test_one_that_joins_for_one_that_left_is_idle():
    cluster = Cluster(2, [(100, 10), (100, 10)])
    assert [cluster.place(request) for request in range(2)] == [0, 1]
    left = [cluster.views[0], View(2)]
    cluster.router.follow([0, 2])
    np.testing.assert_array_equal(cluster.router.costs(100, 10, left) > 0, [True, False])


def test_one_that_cannot_serve_a_request_is_passed_over_for_it_and_what_it_holds_stays_known():
    cluster = Cluster(2, [(100, 10), (100, 10)])
    assert cluster.place(0) == 0
    before = cluster.router.costs(100, 10, cluster.views)
    np.testing.assert_array_equal(cluster.router.costs(100, 10, cluster.views[1:]), before[1:])
    np.testing.assert_array_equal(cluster.router.costs(100, 10, cluster.views), before)
