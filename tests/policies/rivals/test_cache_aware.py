"""`cache_aware` of SGLang's gateway and vLLM's router; one prefix id stands for 10 tokens."""

from __future__ import annotations

from l4sim.policies.rivals.cache_aware import CacheAware
from tests.policies.conftest import View, arrival, views


def send(router: CacheAware, counts: list[int]) -> None:
    """Let this many short requests be in flight on each instance."""
    number = 1000
    for instance, count in enumerate(counts):
        for _ in range(count):
            router.in_flight.send(number, instance)
            number += 1


def test_a_prompt_goes_where_its_prefix_went():
    router = CacheAware(3, 10)
    first = router.route(arrival(40, prefix_ids=(1, 2, 3, 4)), views(0, 0, 0))
    router.route(arrival(40, request=1, prefix_ids=(7, 8)), views(0, 0, 0))
    assert router.route(arrival(50, request=2, prefix_ids=(1, 2, 9)), views(0, 0, 0)) == first


def test_a_match_of_three_tenths_is_not_enough_and_more_is():
    for prompt_tokens, expected in ((99, 0), (100, 1)):
        router = CacheAware(2, 10)
        router.route(arrival(30, prefix_ids=(1, 2, 3)), views(0, 0))
        taken = router.route(arrival(prompt_tokens, request=1, prefix_ids=(1, 2, 3)), views(0, 0))
        assert taken == expected, f"30 of {prompt_tokens} tokens"


def test_without_a_match_the_fewest_requests_in_flight_win_and_of_equals_who_was_sent_fewest():
    router = CacheAware(3, 10)
    taken = [router.route(arrival(request=number), views(0, 0, 0)) for number in range(4)]
    assert taken == [0, 1, 2, 0]
    router.ended(1, 0.0)
    assert router.route(arrival(request=4), views(0, 0, 0)) == 1
    for number in range(5):
        router.ended(number, 0.0)
    assert router.route(arrival(request=5), views(0, 0, 0)) == 2, "which was sent one, the others two"


def test_load_is_what_the_gateway_counts_itself():
    router = CacheAware(2, 10)
    assert [router.route(arrival(request=number), views(900, 0)) for number in range(2)] == [0, 1]


def test_uneven_load_goes_before_affinity_and_the_tree_learns_of_it():
    router = CacheAware(2, 10)
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(prompt, views(0, 0)) == 0
    send(router, [63, 0])
    assert router.route(prompt._replace(request=1), views(0, 0)) == 0, "a difference of 64 is not above 64"
    assert router.route(prompt._replace(request=2), views(0, 0)) == 1
    assert router.tree.sizes_tokens == [40, 40]


def test_a_large_difference_among_large_loads_is_no_imbalance():
    router = CacheAware(2, 10)
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(prompt, views(0, 0)) == 0
    send(router, [299, 200])
    assert router.route(prompt._replace(request=1), views(0, 0)) == 0, "300 is 1.5 times 200, not more"
    assert router.route(prompt._replace(request=2), views(0, 0)) == 1


def test_trees_are_cut_down_when_the_timer_fires():
    router = CacheAware(2, 10, max_tree_tokens=50)
    assert router.timers == {"evict": 60.0}
    for number in range(1, 5):
        ids = tuple(range(100 * number, 100 * number + 4))
        router.route(arrival(40, request=number, prefix_ids=ids), views(0, 0))
    assert router.tree.sizes_tokens == [80, 80]
    router.tick("evict", 60.0)
    assert router.tree.sizes_tokens == [40, 40]


def test_a_dead_instance_s_prefixes_are_forgotten():
    router = CacheAware(3, 16)
    shared, other = (arrival(160, request=n, prefix_ids=tuple(range(100 * n, 100 * n + 10))) for n in (1, 2))
    assert [router.route(prompt, views(0, 0, 0)) for prompt in (shared, other)] == [0, 1]
    router.follow([1, 2])
    survivors = [View(1), View(2)]
    assert router.route(other._replace(request=3), survivors) == 0, "instance 1 has it, and is the first now"
    assert router.route(shared, survivors) == 1, "nobody has it; instance 2 has least"


def test_one_that_joins_has_nothing_in_flight():
    router = CacheAware(2, 10)
    assert [router.route(arrival(30, request=n), views(0, 0)) for n in range(2)] == [0, 1]
    router.follow([1, 2, 5])
    assert router.route(arrival(30, request=2), [View(1), View(2), View(5)]) == 1
    assert router.route(arrival(30, request=3), [View(1), View(2), View(5)]) == 2


def test_one_that_cannot_serve_a_request_is_passed_over_for_it_and_keeps_its_tree():
    router = CacheAware(3, 10)
    shared = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(shared, views(0, 0, 0)) == 0
    assert router.route(shared._replace(request=1), [View(1), View(2)]) == 0, "which is instance 1, with an empty tree"
    assert router.route(shared._replace(request=2), views(0, 0, 0)) == 0
