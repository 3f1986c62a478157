"""SGLang's bucket router. The expected ranges are those of the source's own tests (`bucket.rs`)."""

from __future__ import annotations

import pytest

from l4sim.policies.rivals.sglang_bucket import Bucket, draw_ranges
from tests.policies.conftest import View, arrival, views


@pytest.mark.parametrize(
    ("prompt_tokens", "uppers"),
    [
        ([5, 10, 15, 20, 24, 26], [20, 26]),
        ([10, 20, 30, 40, 45, 57], [40, 57]),
        ([33, 34, 34], [33, 67]),
        ([20], [20, 27]),
        ([7], [7, 10]),
    ],
)
def test_ranges_hold_equal_shares_of_the_tokens(prompt_tokens: list[int], uppers: list[int]):
    assert draw_ranges(prompt_tokens, 3) == uppers
    assert draw_ranges(reversed(prompt_tokens), 3) == uppers, "in whatever order the prompts came"


def test_at_first_1024_tokens_are_divided_evenly_and_the_last_range_has_no_end():
    starts = [0, 255, 256, 511, 512, 767, 768, 10**6]
    routers = [Bucket(4) for _ in starts]
    instances = views(0, 0, 0, 0)
    taken = [router.route(arrival(tokens), instances) for router, tokens in zip(routers, starts, strict=True)]
    assert taken == [0, 0, 1, 1, 2, 2, 3, 3]


def bucket_without_balancing() -> Bucket:
    return Bucket(3, balance_abs_threshold=10**9)


def test_ranges_are_redrawn_every_5_s_from_the_prompts_of_the_last_5_s():
    router = bucket_without_balancing()
    for tokens in (5, 10, 15, 20, 24, 26):
        assert router.route(arrival(tokens), views(0, 0, 0, as_of_s=1.0)) == 0
    router.tick("adjust", 5.0)
    later = views(0, 0, 0, as_of_s=5.5)
    assert [router.route(arrival(tokens), later) for tokens in (20, 21, 26, 27)] == [0, 1, 1, 2]


def test_ranges_stay_unless_the_load_has_doubled_or_halved():
    router = bucket_without_balancing()
    router.route(arrival(90), views(0, 0, 0, as_of_s=0.5))
    router.tick("adjust", 5.0)
    router.route(arrival(180), views(0, 0, 0, as_of_s=6.0))
    router.tick("adjust", 10.0)
    # Drawn at 5 s from [90], a share of 30: ranges to 90, to 121, and beyond. At 10 s the share is 60, not above twice
    # as much; drawn from [180], the first range would reach to 180.
    assert router.route(arrival(100), views(0, 0, 0, as_of_s=10.5)) == 1
    router.tick("adjust", 15.0)
    # At 15 s the prompts since then, 180 and 100 tokens, have a share of 93: ranges to 100, to 180, and beyond.
    assert router.route(arrival(100), views(0, 0, 0, as_of_s=15.0)) == 0


def test_without_arrivals_there_is_nothing_to_redraw_from():
    router = bucket_without_balancing()
    router.tick("adjust", 5.0)
    assert router.route(arrival(1000), views(0, 0, 0, as_of_s=100.0)) == 2


def test_uneven_tokens_go_to_the_instance_that_was_sent_the_fewest():
    router = Bucket(3)
    taken = [router.route(arrival(tokens), views(0, 0, 0)) for tokens in (16, 17, 5, 5)]
    # 16 tokens to the first instance are no imbalance yet; 33 are, and then 5 on the second against none on the third.
    assert taken == [0, 0, 1, 2]


def test_requests_running_do_not_count_as_load():
    assert Bucket(3).route(arrival(16), views(500, 0, 0)) == 0


def test_tokens_sent_count_for_5_s():
    router = Bucket(2)
    for now_s in (0.0, 0.1):
        router.route(arrival(100), views(0, 0, as_of_s=now_s))
    assert router.route(arrival(1), views(0, 0, as_of_s=0.2)) == 0, "100 tokens each"
    # Expired prompts are told from the next arrival on: this one still sees 101 against 100, the one after it 0 and 9.
    assert router.route(arrival(9), views(0, 0, as_of_s=5.6)) == 0
    assert router.route(arrival(1000), views(0, 0, as_of_s=5.7)) == 1


def test_survivors_share_all_lengths_by_what_they_were_sent_lately():
    router = bucket_without_balancing()
    router.route(arrival(90), views(0, 0, 0, as_of_s=0.5))
    assert [router.route(arrival(tokens), views(0, 0, 0, as_of_s=0.5)) for tokens in (400, 800)] == [1, 2]
    # Instances 1 and 2 were sent 400 and 800, a share of 600: the first one's range grows to the prompt that fills it.
    survivors = views(0, 0, 0, as_of_s=1.0)[1:]
    router.follow([1, 2])
    assert [router.route(arrival(tokens), survivors) for tokens in (5, 800, 801)] == [0, 0, 1]


def test_before_there_are_prompts_survivors_share_evenly():
    router = bucket_without_balancing()
    router.follow([0, 1])
    assert [router.route(arrival(tokens), views(0, 0, 0)[:2]) for tokens in (511, 512)] == [0, 1]


def test_one_that_joins_has_a_range_too():
    router = bucket_without_balancing()
    for tokens in (90, 400, 800):
        router.route(arrival(tokens), views(0, 0, 0, as_of_s=0.5))
    # A share of 1290 // 4 = 322: 90 and 400 fill the first range, 800 the second; the others are one share wide.
    grown = views(0, 0, 0, 0, as_of_s=1.0)
    router.follow([0, 1, 2, 3])
    assert [router.route(arrival(tokens), grown) for tokens in (400, 800, 1123, 1124)] == [0, 1, 2, 3]


def test_one_that_joins_for_one_that_left_is_not_taken_for_it():
    router = Bucket(2)
    router.route(arrival(100), views(0, 0))
    router.follow([0, 2])
    assert router.route(arrival(100), [View(0), View(2)]) == 1, "which was sent nothing yet"


def test_where_the_instance_of_a_range_cannot_serve_a_prompt_the_one_that_can_with_the_fewest_tokens_does():
    router = bucket_without_balancing()
    assert [router.route(arrival(tokens), views(0, 0, 0)) for tokens in (300, 400)] == [0, 1]
    able = [View(1), View(2)]
    assert router.route(arrival(10), able) == 1, "not instance 0, and 2 was sent nothing yet"
    assert router.route(arrival(500), able) == 0
    assert router.route(arrival(10), views(0, 0, 0)) == 0
