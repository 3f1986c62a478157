"""Each copy of the ranges tiles [0, max] whatever it hears; copies that have heard the same agree."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.policies.l4.messages import Boundary
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.plan import Plan, Stage
from tests.policies.l4.protocol import THREE_STAGES

FOUR_STAGES = Plan((Stage(0, 100, (0,)), Stage(100, 300, (1,)), Stage(300, 900, (2, 3)), Stage(900, 4000, (4,))))

boundaries = st.builds(Boundary, st.integers(0, 2), st.integers(0, 5), st.integers(1, 4000))


def ranges_of(ranges: Ranges) -> list[tuple[int, int]]:
    return [ranges.range_of(stage) for stage in range(len(ranges))]


@pytest.mark.slow
@given(st.lists(boundaries), st.integers(0, 5000))
def test_whatever_is_heard_the_ranges_tile_and_every_length_has_the_stage_whose_range_it_is_in(heard, context_tokens):
    ranges = Ranges(FOUR_STAGES)
    for boundary in heard:
        ranges.apply(boundary)
        tiles = ranges_of(ranges)
        assert (tiles[0][0], tiles[-1][1]) == (0, 4000)
        assert all(below[1] == above[0] for below, above in pairwise(tiles))
        assert all(lo <= hi for lo, hi in tiles)
        lo, hi = ranges.range_of(ranges.stage_for(context_tokens))
        assert lo <= context_tokens < hi or context_tokens >= hi == 4000


@pytest.mark.slow
@given(st.data())
def test_copies_that_have_heard_the_same_agree_in_whatever_order_and_however_often(data):
    heard = data.draw(st.lists(boundaries))
    again = data.draw(st.permutations([*heard, *data.draw(st.lists(st.sampled_from(heard)) if heard else st.just([]))]))
    one, other = Ranges(FOUR_STAGES), Ranges(FOUR_STAGES)
    for boundary in heard:
        one.apply(boundary)
    for boundary in again:
        other.apply(boundary)
    assert ranges_of(one) == ranges_of(other)
    assert [one.boundary(stage) for stage in range(3)] == [other.boundary(stage) for stage in range(3)]


@pytest.mark.slow
@given(st.lists(boundaries, min_size=1), st.lists(boundaries))
def test_whoever_has_heard_the_highest_versions_need_not_have_heard_the_rest(heard, lost):
    highest = [
        max(boundary for boundary in heard + lost if boundary.stage == n) for n in {b.stage for b in heard + lost}
    ]
    one, other = Ranges(FOUR_STAGES), Ranges(FOUR_STAGES)
    for boundary in heard + highest:
        one.apply(boundary)
    for boundary in highest:
        other.apply(boundary)
    assert ranges_of(one) == ranges_of(other)


def test_only_news_is_news():
    ranges = Ranges(THREE_STAGES)
    assert ranges.apply(Boundary(0, 2, 90))
    assert not ranges.apply(Boundary(0, 2, 90)), "heard before"
    assert not ranges.apply(Boundary(0, 1, 120)), "overruled"
    assert ranges.apply(Boundary(0, 2, 95)), "of equal versions the higher end holds"
    assert ranges.boundary(0) == Boundary(0, 2, 95)


def test_a_boundary_pushed_past_the_next_one_empties_that_range_until_its_own_news_comes():
    ranges = Ranges(THREE_STAGES)
    ranges.apply(Boundary(0, 1, 1200))
    assert ranges_of(ranges) == [(0, 1200), (1200, 1200), (1200, 4000)]
    assert ranges.stage_for(1200) == 2
    ranges.apply(Boundary(1, 1, 1500))
    assert ranges_of(ranges) == [(0, 1200), (1200, 1500), (1500, 4000)]


def test_a_dead_stage_s_lengths_go_to_the_next_one_above_else_below():
    ranges = Ranges(THREE_STAGES)
    ranges.remove(1)
    assert ranges.stage_for(500) == 1
    ranges.remove(2)
    assert ranges.stage_for(500) == 2
    assert (ranges.neighbour(0, 1), ranges.neighbour(2, -1), ranges.neighbour(2, 1)) == (2, 0, None)
    ranges.remove(3)
    assert ranges.stage_for(500) == ranges.stage_for(3000) == 0
    assert ranges.neighbour(0, 1) is None


# Instances that join and go.


def members(ranges: Ranges) -> list[list[int]]:
    return [list(ranges.members(stage)) for stage in range(len(ranges))]


def test_one_that_joins_takes_the_place_that_is_missing_most_else_the_largest_stage_grows():
    ranges = Ranges(FOUR_STAGES)
    ranges.add(5)
    assert members(ranges) == [[0], [1], [2, 3, 5], [4]]
    ranges.remove(1)
    ranges.add(6)
    assert members(ranges) == [[0], [6], [2, 3, 5], [4]]
    assert ranges.stage_for(200) == 1
    ranges.add(6)
    assert members(ranges) == [[0], [6], [2, 3, 5], [4]], "heard before"


def test_one_that_joined_leads_after_those_of_the_plan_and_its_turn_has_never_been():
    ranges = Ranges(THREE_STAGES)
    ranges.add(4)
    assert (ranges.stage_of_instance(4), ranges.leader(1)) == (1, 1)
    ranges.remove(1)
    ranges.remove(2)
    assert ranges.leader(1) == 4
    assert ranges.turn(4) == 2


def test_one_that_is_not_seen_is_passed_over_until_it_is():
    ranges = Ranges(THREE_STAGES)
    ranges.see({0, 2})
    assert members(ranges) == [[0], [2], []]
    ranges.add(4)
    assert members(ranges) == [[0], [2, 4], []], "who is not seen has not gone: no place is missing"
    ranges.see({0, 1, 2, 3, 4})
    assert members(ranges) == [[0], [1, 2, 4], [3]]


def test_a_copy_knows_what_was_heard_but_sees_for_itself():
    ranges = Ranges(THREE_STAGES)
    ranges.apply(Boundary(0, 3, 120))
    ranges.add(4)
    ranges.remove(1)
    ranges.see({0})
    copy = ranges.copy()
    assert members(copy) == [[0], [2, 4], [3]]
    assert copy.boundary(0) == Boundary(0, 3, 120)
    copy.add(5)
    assert members(ranges) == [[0], [], []], "which is nothing to the original"


PLANS = (
    FOUR_STAGES,
    Plan((Stage(0, 100, (0, 1)), Stage(100, 300, (2,)), Stage(300, 900, (3,)), Stage(900, 4000, (4,)))),
    Plan((Stage(0, 100, (0,)), Stage(100, 300, (1,)), Stage(300, 900, (2, 3)), Stage(900, 4000, (4, 5)))),
)


@pytest.mark.slow
@given(st.data())
def test_holders_agree_on_who_is_in_which_stage_whenever_each_of_them_hears_of_a_plan(data):
    joins = iter(range(5, 12))
    changes = [
        (next(joins), True) if data.draw(st.booleans()) else (data.draw(st.integers(0, 8)), False) for _ in range(6)
    ]
    plans = data.draw(st.lists(st.sampled_from(PLANS), max_size=2))
    holders = []
    for _ in range(2):
        when = sorted(data.draw(st.lists(st.integers(0, 6), min_size=len(plans), max_size=len(plans))))
        ranges = Ranges(FOUR_STAGES)
        for moment in range(7):
            for plan, at in zip(plans, when, strict=True):
                if at == moment:
                    ranges.replace(plan)
            for instance, joined in changes[moment : moment + 1]:
                (ranges.add if joined else ranges.remove)(instance)
        holders.append(members(ranges))
    assert holders[0] == holders[1]
    planned = {instance for stage in [FOUR_STAGES, *plans][-1].stages for instance in stage.instances}
    joined, gone = ({instance for instance, is_join in changes if is_join is kind} for kind in (True, False))
    assert sorted(chain.from_iterable(holders[0])) == sorted((planned | joined) - gone)


def test_the_lowest_living_member_leads():
    ranges = Ranges(THREE_STAGES)
    assert ranges.leader(1) == 1
    ranges.remove(1)
    ranges.remove(1)
    assert ranges.leader(1) == 2
    ranges.remove(2)
    assert ranges.leader(1) is None
