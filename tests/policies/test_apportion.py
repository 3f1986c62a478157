"""Groups of a fleet grow in proportion to their planned sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.policies.apportion import next_group


@pytest.mark.parametrize(
    ("sizes", "planned", "group"),
    [
        # A fleet that is whole: the largest group; of equals the first.
        ((1, 2, 1), (1, 2, 1), 1),
        ((2, 2), (2, 2), 0),
        # One that has lost instances, all the more one that has lost all.
        ((3, 1), (4, 1), 0),
        ((3, 0), (4, 1), 1),
        # What has grown already waits for the others to follow.
        ((1, 3, 1), (1, 2, 1), 0),
    ],
)
def test_the_place_that_is_missing_most_is_taken(sizes, planned, group):
    assert next_group(sizes, planned) == group


@pytest.mark.slow
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_a_fleet_that_has_grown_to_a_multiple_is_in_the_planned_proportion(planned, times):
    sizes = list(planned)
    for _ in range((times - 1) * sum(planned)):
        sizes[next_group(sizes, planned)] += 1
    assert sizes == [times * wanted for wanted in planned]
