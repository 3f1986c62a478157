"""L4's dispatch over all instances: by harm, prefixes, one's own wait and the price of a stage."""

from __future__ import annotations

from l4sim.policies.agent import Draining, InstanceUp
from l4sim.policies.l4.dispatch import FEWEST, Dispatch, ExpectedHits
from l4sim.policies.plan import Plan, Stage
from tests.policies.conftest import View, arrival, views
from tests.policies.l4.protocol import THREE_STAGES

ONE_STAGE = Plan((Stage(0, 4000, (0, 1)),))
PREFIX = (1, 2, 3, 4, 5)


def hits() -> ExpectedHits:
    return ExpectedHits(16, 16_000)


def test_where_all_is_equal_a_request_goes_to_the_stage_of_its_length_the_first_of_equals():
    router = Dispatch(THREE_STAGES)
    assert [router.route(arrival(tokens), views(0, 0, 0, 0)) for tokens in (99, 100, 999, 1000)] == [0, 1, 1, 3]


def test_within_a_stage_it_goes_where_it_does_and_suffers_the_least_harm():
    # (5 + 6) x 100 + 900 = 2,000 against (2 + 6) x (40 + 100) + 870 = 1,990 and 1,890.
    crowded = View(0, running=5, context_tokens=900)
    for context_tokens, chosen in ((890, 0), (870, 1), (770, 1)):
        behind_prompts = View(1, running=2, pending_prompt_tokens=40, context_tokens=context_tokens)
        assert Dispatch(ONE_STAGE).route(arrival(100), [crowded, behind_prompts]) == chosen


def test_a_request_s_own_wait_counts_as_that_of_several():
    # Alone behind 400 tokens, or beside ten others behind none: 6 x 500 + 0 against 16 x 100.
    waits, crowds = View(0, pending_prompt_tokens=400), View(1, running=10)
    assert Dispatch(ONE_STAGE).route(arrival(100), [waits, crowds]) == 1
    assert Dispatch(ONE_STAGE, own=1).route(arrival(100), [waits, crowds]) == 0, "500 against 1,100"


def test_a_stage_is_a_price_and_no_fence():
    router = Dispatch(THREE_STAGES)
    # Down, 6 x 1.5 x 500 = 4,500; in its stage (n + 6) x 500.
    assert router.route(arrival(500), views(0, 2, 2, 99)) == 1, "4,000"
    assert router.route(arrival(500), views(0, 4, 4, 99)) == 0, "5,000"


def test_outside_its_stage_contexts_are_dearer_too():
    below = View(0, context_tokens=400)
    others = [View(1, running=4), View(2, running=4), View(3, running=99)]
    assert Dispatch(THREE_STAGES).route(arrival(500), [below, *others]) == 1, "5,000 against 4,500 + 1.5 x 400"


def test_what_waits_in_another_stage_is_not_dearer_for_it():
    # 6 x (100 + 1.5 x 500) = 5,100 against 11 x 500.
    below = View(0, pending_prompt_tokens=100)
    assert Dispatch(THREE_STAGES).route(arrival(500), [below, *views(0, 5, 5, 99)[1:]]) == 0


def test_a_stage_above_is_left_to_prompts_of_its_own():
    router = Dispatch(THREE_STAGES)
    # (n + 6) x 100 against 6 x (1.5 x 100 + 900) = 6,300 in the highest stage.
    assert router.route(arrival(100), views(99, 56, 56, 0)) == 1
    assert router.route(arrival(100), views(99, 58, 58, 0)) == 3


def test_a_stage_above_that_no_prompts_are_sent_to_is_not_kept_free():
    router = Dispatch(THREE_STAGES)
    for _ in range(FEWEST):
        router.route(arrival(100), views(0, 0, 0, 0))
    assert router.route(arrival(100), views(99, 4, 4, 0)) == 3, "1,000 against 6 x 150"


def test_without_stages_only_harm_counts():
    assert Dispatch(THREE_STAGES, outside=1).route(arrival(100), views(5, 1, 1, 0)) == 3


def test_what_is_cached_is_not_computed():
    router = Dispatch(ONE_STAGE, hits())
    assert router.route(arrival(100, prefix_ids=PREFIX), views(0, 0)) == 0
    # 80 tokens are cached on the first: (n + 6) x 20 against 6 x 100.
    assert router.route(arrival(100, prefix_ids=PREFIX), views(23, 0)) == 0
    assert router.route(arrival(100, prefix_ids=PREFIX), views(25, 0)) == 1


def test_one_token_of_a_prompt_is_computed_whatever_is_cached():
    router = Dispatch(ONE_STAGE, hits())
    router.route(arrival(80, prefix_ids=PREFIX), views(0, 0))
    cached = hits()
    cached.sent(arrival(80, prefix_ids=PREFIX), 1, 0)
    assert cached.cached_tokens(arrival(80, prefix_ids=PREFIX)) == {1: 79}


def test_what_the_queue_will_find_cached_is_not_pending():
    router = Dispatch(ONE_STAGE, hits())
    router.route(arrival(100, prefix_ids=PREFIX), views(0, 9))
    router.route(arrival(100, request=1, prefix_ids=PREFIX), views(0, 9))
    # The second waits on instance 0: of its 100 tokens 20 will be computed, so that 7 x 140 is less than 11 x 100.
    queued = [View(0, waiting=1, pending_prompt_tokens=100), View(1, running=5)]
    assert router.route(arrival(100, prefix_ids=(9,)), queued) == 0
    assert Dispatch(ONE_STAGE).route(arrival(100), queued) == 1


def test_who_joins_serves_and_who_drains_does_not():
    router = Dispatch(THREE_STAGES)
    router.route(arrival(500), views(0, 2, 2, 0))
    router.hear(InstanceUp(4), 5.0)
    assert router.route(arrival(500), views(0, 2, 2, 0, 0)) == 4, "it has joined the middle stage"
    router.hear(Draining(4), 6.0)
    assert router.route(arrival(500), views(9, 2, 2, 9)) == 1


def test_what_has_left_has_nothing_cached_any_more():
    router = Dispatch(ONE_STAGE, hits())
    router.route(arrival(100, prefix_ids=PREFIX), views(0, 9))
    router.follow([1, 2])
    assert router.route(arrival(100, prefix_ids=PREFIX), [View(1, running=1), View(2)]) == 1


def test_the_dead_are_passed_over_even_before_the_first_request():
    assert Dispatch(THREE_STAGES).route(arrival(5000), [View(0)]) == 0
    assert Dispatch(THREE_STAGES).route(arrival(500), [View(0), View(3)]) == 1, "the stage above is home now"
