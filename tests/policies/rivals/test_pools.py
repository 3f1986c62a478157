"""Two static pools by prompt length."""

from __future__ import annotations

import re

import numpy as np
import pytest

from l4sim.errors import InputError
from l4sim.policies.rivals.pools import Pools, TwoPools, split_pools
from tests.policies.conftest import View, arrival, views


def split(prompt_tokens: list[int], output_tokens: list[int], instances: int) -> Pools:
    return split_pools(np.array(prompt_tokens), np.array(output_tokens), instances)


def test_the_boundary_halves_the_tokens_and_instances_follow_the_load():
    # In order of prompts 10, 10, 30, 100: tokens of 20, 20, 60 and 110. Up to 30: 100 of 210, nearest to a half.
    assert split([100, 10, 30, 10], [10, 10, 30, 10], 4) == Pools(boundary_tokens=100, short_instances=2)


def test_answers_are_load_too():
    # Up to 10: 910 of 1110 tokens, which is 3.3 of 4 instances.
    assert split([10, 100], [900, 100], 4) == Pools(boundary_tokens=100, short_instances=3)


def test_each_pool_has_an_instance():
    assert split([10, 10_000], [1, 1], 4) == Pools(boundary_tokens=10_000, short_instances=1)
    assert split([10, 11], [10_000, 1], 4) == Pools(boundary_tokens=11, short_instances=3)


@pytest.mark.parametrize(
    ("prompt_tokens", "instances", "message"),
    [
        ([5, 9], 1, "policy 'two-pools' needs at least 2 instances, not 1"),
        ([5, 5], 4, "policy 'two-pools' needs prompts of different lengths, and the plan's sample has none"),
    ],
)
def test_what_cannot_be_split_is_refused(prompt_tokens: list[int], instances: int, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        split(prompt_tokens, [1, 1], instances)


def test_a_request_goes_to_the_least_loaded_instance_of_its_pool():
    router = TwoPools(Pools(boundary_tokens=100, short_instances=2), 5)
    running = (3, 1, 8, 7, 7)
    instances = [View(number, running=count, waiting=number == 1) for number, count in enumerate(running)]
    assert router.route(arrival(99), instances) == 1
    assert router.route(arrival(100), instances) == 3


def test_a_pool_that_has_died_is_served_by_the_other_one():
    router = TwoPools(Pools(boundary_tokens=100, short_instances=2), 5)
    survivors = views(3, 1, 8, 7, 7)[2:]
    assert router.route(arrival(99), survivors) == 1
    assert router.route(arrival(100), survivors) == 1


def test_one_that_joins_goes_to_the_pool_that_it_is_missing_from_most():
    router = TwoPools(Pools(boundary_tokens=100, short_instances=2), 5)
    grown = [*views(9, 9, 9, 9, 9), View(5)]
    router.follow(range(6))
    assert [router.route(arrival(tokens), grown) for tokens in (99, 100)] == [0, 5], "a whole fleet: the larger pool"
    router.follow([1, 2, 3, 4, 5, 6])
    lost = [View(1, running=9), *(View(number) for number in (2, 3, 4, 5, 6))]
    assert router.route(arrival(99), lost) == 5, "instance 0 has left: 6 takes its place"
