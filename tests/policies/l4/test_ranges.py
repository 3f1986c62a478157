"""Each copy of the ranges tiles [0, max] whatever it hears; copies that have heard the same agree."""

from __future__ import annotations

from itertools import pairwise

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


def test_the_lowest_living_member_leads():
    ranges = Ranges(THREE_STAGES)
    assert ranges.leader(1) == 1
    ranges.remove(1)
    ranges.remove(1)
    assert ranges.leader(1) == 2
    ranges.remove(2)
    assert ranges.leader(1) is None
