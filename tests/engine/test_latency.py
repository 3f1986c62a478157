"""The longest value since a commit: one case by hand, and brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.engine.latency import LongestSince


def test_a_long_iteration_counts_only_for_those_who_were_there() -> None:
    longest = LongestSince()
    for value in (0.3, 0.9, 0.2, 0.5, 0.1):
        longest.add(value)
    # Commits 0..4: the 0.9 of commit 1 is the answer for whoever began by then, the 0.5 of commit 3 for those after.
    assert [longest.since(number) for number in range(5)] == [0.9, 0.9, 0.5, 0.5, 0.1]


def test_nothing_yet_is_zero() -> None:
    longest = LongestSince()
    assert longest.since(0) == 0.0
    longest.add(0.4)
    assert longest.since(longest.count) == 0.0


@pytest.mark.slow
@given(st.lists(st.integers(0, 5)))
def test_equals_brute_force_after_every_commit(values: list[int]) -> None:
    longest = LongestSince()
    for count, value in enumerate(values, start=1):
        longest.add(float(value))
        assert longest.count == count
        seen = values[:count]
        assert [longest.since(number) for number in range(count + 1)] == [
            max(seen[number:], default=0) for number in range(count + 1)
        ]
