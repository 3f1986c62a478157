"""Where an instance goes that joins a fleet whose instances are in groups of planned sizes. **[ours]**"""

from __future__ import annotations

from collections.abc import Sequence


def next_group(sizes: Sequence[int], planned: Sequence[int]) -> int:
    """The group that one more instance belongs to, so that sizes stay in the proportion of those planned.

    As seats are apportioned after Webster: the group with the least (size + 1/2) / planned size, the first of equals.
    So a group that has lost instances is filled up first, and in a fleet that is whole the largest one grows.
    """
    ratios = [(size + 0.5) / wanted for size, wanted in zip(sizes, planned, strict=True)]
    return ratios.index(min(ratios))
