"""Boundaries refined from lengths, queues and spare capacity; `test_refinement` has who speaks to whom."""

from __future__ import annotations

import numpy as np
import pytest

from l4sim.policies.agent import Send
from l4sim.policies.l4.messages import StageState, State
from l4sim.policies.l4.ranges import Ranges
from l4sim.policies.l4.spare_capacity import BySpareCapacity
from l4sim.policies.views import DecodingRequest
from tests.policies.conftest import View
from tests.policies.l4.protocol import THREE_STAGES, sent

# 16,000 tokens of KV cache.
LENGTHS = (99, 98, 97, 90, 50)


def instance(used_tokens: int, lengths: tuple[int, ...] = (), queued_tokens: int = 0) -> View:
    batch = tuple(DecodingRequest(number, length) for number, length in enumerate(lengths))
    return View(kv_blocks_free=1000 - used_tokens // 16, waiting_tokens=queued_tokens, batch=batch)


def part(number: int, ranges: Ranges) -> BySpareCapacity:
    return BySpareCapacity(number, ranges, [2.0] * 3, np.random.default_rng(0))


def end_after(own: View, above: StageState | None) -> int:
    """Where the lowest stage, which ended at 100, ends after a period."""
    ranges = Ranges(THREE_STAGES)
    leader = part(0, ranges)
    leader.sample(own)
    if above is not None:
        leader.summarised(above)
    leader.period()
    return ranges.range_of(0)[1]


@pytest.mark.parametrize(
    ("used_tokens", "queued_tokens", "used_above", "hi_tokens"),
    [
        # 8,000 of 16,000 against 15,200 of 32,000: a gap of 2.5 % is noise.
        (8000, 0, 15_200, 100),
        # Equal shares need 667 tokens to go, and each of the five lengths stands for a fifth of 8,000.
        (8000, 0, 14_000, 99),
        # 10,133 of 15,200 have to go: three lengths of five.
        (15_200, 0, 0, 97),
        # The queue's tokens are use too.
        (0, 15_200, 0, 97),
    ],
)
def test_a_fuller_stage_gives_up_its_longest_in_small_steps(used_tokens, queued_tokens, used_above, hi_tokens):
    own = instance(used_tokens, LENGTHS, queued_tokens)
    assert end_after(own, StageState(1, used_above, 32_000, (100, 101))) == hi_tokens


def test_a_stage_with_capacity_to_spare_takes_over_the_shortest_of_the_one_above():
    # 2,133 of 16,000 tokens, of which 102 in 705 stand for 2,315.
    assert end_after(instance(4800, LENGTHS), StageState(1, 16_000, 32_000, (500, 102, 103))) == 102


def test_no_step_is_larger_than_a_twentieth():
    assert end_after(instance(15_200, (99, 50)), StageState(1, 0, 32_000, ())) == 95
    assert end_after(instance(0), StageState(1, 16_000, 32_000, (500,))) == 105


def test_without_news_from_above_or_requests_that_could_change_sides_nothing_moves():
    assert end_after(instance(15_000, LENGTHS), None) == 100
    assert end_after(instance(15_000, (120, 130)), StageState(1, 0, 32_000, ())) == 100, "beyond it already"


def test_a_member_tells_what_its_cache_holds_what_queues_and_some_lengths():
    member = part(2, Ranges(THREE_STAGES))
    member.sample(instance(1600, (200, 300), 77))
    assert sent(member.period()) == [Send(1, State(1600, 77, 16_000, (200, 300)))]


def test_a_leader_tells_the_stage_below_the_same_of_all_members():
    leader = part(1, Ranges(THREE_STAGES))
    leader.sample(instance(1600, (200,)))
    leader.reported(2, State(3200, 100, 16_000, (300,)))
    assert Send(0, StageState(1, 4900.0, 32_000.0, (200, 300))) in sent(leader.period())
