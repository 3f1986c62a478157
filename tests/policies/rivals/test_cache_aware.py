"""SGLang's cache-aware router; one prefix id stands for 10 tokens."""

from __future__ import annotations

from l4sim.policies.rivals.sglang.cache_aware import CacheAware
from tests.policies.conftest import View, arrival, views


def test_a_prompt_goes_where_its_prefix_went():
    router = CacheAware(3, 10)
    first = router.route(arrival(40, prefix_ids=(1, 2, 3, 4)), views(0, 0, 0))
    router.route(arrival(40, prefix_ids=(7, 8)), views(1, 0, 0))
    assert router.route(arrival(50, prefix_ids=(1, 2, 9)), views(5, 0, 0)) == first


def test_a_match_of_three_tenths_is_not_enough_and_more_is():
    router = CacheAware(2, 10)
    router.route(arrival(30, prefix_ids=(1, 2, 3)), views(0, 0))
    assert router.route(arrival(99, prefix_ids=(1, 2, 3)), views(0, 0)) == 0, "30 of 99 tokens"
    router = CacheAware(2, 10)
    router.route(arrival(30, prefix_ids=(1, 2, 3)), views(0, 0))
    assert router.route(arrival(100, prefix_ids=(1, 2, 3)), views(0, 0)) == 1, "30 of 100 tokens"


def test_without_a_match_the_smallest_tree_is_next():
    router = CacheAware(3, 10)
    lengths = [50, 30, 20, 15, 40]
    # Trees after each: 50, 30, 20; then 15 to the third (35) and 40 to the second.
    assert [router.route(arrival(tokens), views(0, 0, 0)) for tokens in lengths] == [0, 1, 2, 2, 1]


def test_uneven_load_goes_before_affinity_and_the_tree_learns_of_it():
    router = CacheAware(2, 10)
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(prompt, views(0, 0)) == 0
    assert router.route(prompt, views(64, 0)) == 0, "a difference of 64 is not above 64"
    assert router.route(prompt, [View(0, running=40, waiting=25), View(1)]) == 1
    assert router.tree.sizes_tokens == [40, 40]


def test_a_large_difference_among_large_loads_is_no_imbalance():
    router = CacheAware(2, 10)
    prompt = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(prompt, views(0, 0)) == 0
    assert router.route(prompt, views(300, 200)) == 0, "300 is 1.5 times 200, not more"
    assert router.route(prompt, views(301, 200)) == 1


def test_trees_are_cut_down_every_120_s():
    router = CacheAware(2, 10, max_tree_tokens=50)
    for id_ in range(1, 5):
        router.route(arrival(40, prefix_ids=(100 * id_, 100 * id_ + 1, 100 * id_ + 2, 100 * id_ + 3)), views(0, 0))
    assert router.tree.sizes_tokens == [80, 80]
    router.route(arrival(1), views(0, 0, as_of_s=119.9))
    assert router.tree.sizes_tokens == [81, 80]
    router.route(arrival(1), views(0, 0, as_of_s=120.1))
    assert router.tree.sizes_tokens == [41, 41], "one prompt each has gone; the new token then went to the second"


def test_a_dead_instance_s_prefixes_are_forgotten():
    router = CacheAware(3, 16)
    shared, other = tuple(range(10)), tuple(range(100, 110))
    assert router.route(arrival(160, prefix_ids=shared), views(0, 0, 0)) == 0
    assert router.route(arrival(160, prefix_ids=other), views(0, 0, 0)) == 1
    survivors = views(0, 0, 0)[1:]
    assert router.route(arrival(160, prefix_ids=other), survivors) == 0, "instance 1 has it, and is the first now"
    assert router.route(arrival(160, prefix_ids=shared), survivors) == 1, "nobody has it; instance 2 has least"


def test_one_that_joins_has_the_smallest_tree_and_one_that_left_in_the_meantime_is_forgotten():
    router = CacheAware(2, 10)
    shared = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert [router.route(prompt, views(0, 0)) for prompt in (shared, arrival(30))] == [0, 1]
    joined = [View(1), View(2)]
    router.follow([1, 2])
    assert router.route(shared, joined) == 1, "nobody is known to have it any more"
    assert router.tree.sizes_tokens == [0, 30, 40]
    router.follow([1, 2, 5])
    assert router.route(shared, [View(1), View(2), View(5)]) == 1
    assert router.route(arrival(10), [View(1), View(2), View(5)]) == 2


def test_one_that_cannot_serve_a_request_is_passed_over_for_it_and_keeps_its_tree():
    router = CacheAware(3, 10)
    shared = arrival(40, prefix_ids=(1, 2, 3, 4))
    assert router.route(shared, views(0, 0, 0)) == 0
    assert router.route(shared, [View(1), View(2)]) == 0, "which is instance 1, with an empty tree"
    assert router.route(shared, views(0, 0, 0)) == 0
