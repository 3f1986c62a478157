"""What a sequence keeps: entries of a window or of all tokens, one for several tokens, a fixed state."""

import pytest

from l4sim.specs.dtypes import Dtypes
from l4sim.specs.matrix import Absent, Kept


@pytest.mark.parametrize(
    ("kept", "by_tokens"),
    [
        (Kept(10), {0: 0, 5: 50, 1000: 10_000}),
        (Kept(10, window_tokens=100), {0: 0, 99: 990, 100: 1000, 101: 1000}),
        (Kept(10, tokens_per_entry=4), {3: 0, 4: 10, 7: 10, 8: 20}),
        (Kept(state_bytes=7), {0: 7, 1000: 7}),
    ],
)
def test_bytes_by_length(kept: Kept, by_tokens: dict[int, int]) -> None:
    assert {tokens: kept.bytes(tokens) for tokens in by_tokens} == by_tokens


def test_a_tokens_share_of_an_entry_is_rounded_up() -> None:
    assert [Kept(10, tokens_per_entry=tokens).bytes_per_token for tokens in (1, 4, 5)] == [10, 3, 2]


def test_only_plain_entries_are_of_every_token() -> None:
    assert Kept(10).every_token
    others = Kept(10, window_tokens=5), Kept(10, tokens_per_entry=2), Kept(10, state_bytes=1)
    assert not any(kept.every_token for kept in others)


def test_what_is_absent_has_nothing_and_can_be_shared_by_any_number() -> None:
    absent = Absent()
    assert (absent.matrices(300), absent.kept(Dtypes())) == ((), ())
    assert (absent.of_rank(3), absent.unsplittable(7)) == (absent, None)
