"""The plain routers."""

from __future__ import annotations

from collections import Counter

import pytest

from l4sim.policies.routers import LeastOutstanding, PowerOfTwo, Random, RoundRobin
from tests.policies.conftest import View, arrival, views


def test_round_robin_takes_each_instance_in_turn_whatever_its_load():
    router = RoundRobin()
    assert [router.route(arrival(), views(9, 0, 0)) for _ in range(5)] == [0, 1, 2, 0, 1]


def test_least_outstanding_counts_running_and_waiting_and_takes_the_first_of_equals():
    instances = [View(running=2), View(running=0, waiting=1), View(running=1)]
    assert LeastOutstanding().route(arrival(), instances) == 1


def test_power_of_two_never_takes_the_most_loaded_and_prefers_the_least_loaded():
    router = PowerOfTwo(seed=1)
    taken = Counter(router.route(arrival(), views(0, 1, 2)) for _ in range(3000))
    # Of the three pairs, two hold instance 0, and it wins both; instance 2 loses both of its own.
    assert taken[2] == 0
    assert taken[0] == pytest.approx(2000, abs=100)


def test_power_of_two_with_one_instance_takes_it():
    assert PowerOfTwo(seed=1).route(arrival(), views(7)) == 0


def test_random_takes_all_instances_equally():
    router = Random(seed=1)
    taken = Counter(router.route(arrival(), views(9, 0, 0, 0)) for _ in range(4000))
    assert all(taken[position] == pytest.approx(1000, abs=120) for position in range(4))


@pytest.mark.parametrize("router", [Random, PowerOfTwo])
def test_equal_seeds_choose_alike_and_others_do_not(router: type[Random] | type[PowerOfTwo]):
    def choices(seed: int) -> list[int]:
        made = router(seed)
        return [made.route(arrival(), views(*[0] * 16)) for _ in range(50)]

    assert choices(3) == choices(3)
    assert choices(3) != choices(4)
