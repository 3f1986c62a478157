"""The tree of prompts by prefix; one id stands for 10 tokens."""

from __future__ import annotations

import numpy as np

from l4sim.policies.books.radix_tree import RadixTree


def tree_of(*prompts: tuple[tuple[int, ...], int, int], instances: int = 3) -> RadixTree:
    """A tree with these (ids, prompt tokens, instance) inserted."""
    tree = RadixTree(instances, id_tokens=10)
    for ids, tokens, instance in prompts:
        tree.insert(ids, tokens, instance)
    return tree


def longest(tree: RadixTree, ids: tuple[int, ...]) -> tuple[int, int | None]:
    """Tokens of the longest match, and who was sent it first."""
    held = tree.match(ids)
    return held.tokens, next(iter(held.by), None)


def test_an_empty_tree_matches_nothing():
    assert longest(tree_of(), (1, 2, 3)) == (0, None)


def test_a_prompt_matches_as_far_as_its_leading_ids_agree():
    tree = tree_of(((1, 2, 3, 4), 40, 1))
    assert longest(tree, (1, 2, 3, 4)) == (40, 1)
    assert longest(tree, (1, 2, 7)) == (20, 1)
    assert longest(tree, (1, 2)) == (20, 1)
    assert longest(tree, (2, 3)) == (0, None)


def test_the_longest_match_decides_over_the_shorter_one():
    tree = tree_of(((1, 2), 20, 0), ((1, 2, 3), 30, 2))
    assert longest(tree, (1, 2, 3, 9)) == (30, 2)
    assert longest(tree, (1, 2, 9)) == (20, 0), "the first that was sent the common part"


def test_tokens_behind_the_last_id_count_but_match_no_other_prompt():
    tree = tree_of(((1,), 17, 0), ((), 5, 1))
    assert tree.sizes_tokens == [17, 5, 0]
    assert longest(tree, (1,)) == (10, 0)
    assert longest(tree, ()) == (0, None)


def test_a_prefix_that_an_instance_was_sent_twice_is_held_once():
    tree = tree_of(((1, 2, 3), 30, 0), ((1, 2, 8, 9), 40, 0), ((1, 2, 3), 30, 1))
    # 1 2 in common: 20 tokens, then 3 (10 tokens) and 8 9 (20 tokens).
    assert tree.sizes_tokens == [50, 30, 0]


def test_eviction_forgets_the_least_recently_used_leaves_first():
    tree = tree_of(((1, 2), 20, 0), ((1, 3), 20, 0), ((4,), 10, 0))
    tree.match((1, 2))
    tree.evict(30)
    assert tree.sizes_tokens[0] == 30
    assert longest(tree, (1, 3)) == (10, 0), "the leaf 3 is gone, its parent is not"
    assert longest(tree, (1, 2)) == (20, 0)


def test_a_parent_is_evicted_once_nothing_hangs_below_it():
    tree = tree_of(((1, 2), 20, 0), ((1, 3), 20, 0), ((4,), 10, 0))
    tree.evict(10)
    assert tree.sizes_tokens[0] == 10
    assert longest(tree, (1, 2)) == (0, None)
    assert longest(tree, (4,)) == (10, 0)


def test_eviction_leaves_other_instances_their_share():
    tree = tree_of(((1, 2), 20, 0), ((1, 2), 20, 1), ((3,), 10, 0))
    tree.evict(20)
    assert tree.sizes_tokens == [10, 20, 0]
    assert longest(tree, (1, 2)) == (20, 1)


def test_matches_and_sizes_equal_those_of_sets_of_prefixes():
    # The plain account: each instance's set of prefixes sent to it, every one as long as its number of ids.
    rng = np.random.default_rng(5)
    tree = RadixTree(2, id_tokens=1)
    sent: list[set[tuple[int, ...]]] = [set(), set()]
    for _ in range(300):
        # Ids that stand for all before them: the path walked so far, told by a number of its own.
        path = tuple(int(digit) for digit in rng.integers(1, 3, rng.integers(1, 9)))
        ids = tuple(int("".join(map(str, path[: n + 1]))) for n in range(len(path)))
        prefixes = [ids[: n + 1] for n in range(len(ids))]
        expected = max((len(prefix) for prefix in prefixes if prefix in sent[0] | sent[1]), default=0)
        matched, instance = longest(tree, ids)
        assert matched == expected
        assert instance is None or ids[:matched] in sent[instance]
        chosen = int(rng.integers(2))
        tree.insert(ids, len(ids), chosen)
        sent[chosen].update(prefixes)
        assert tree.sizes_tokens == [len(sent[0]), len(sent[1])]


def test_a_match_names_all_who_were_sent_it():
    tree = tree_of(((1, 2), 20, 2), ((1, 2, 3), 30, 0), ((9,), 10, 1))
    assert list(tree.match((1, 2, 7)).by) == [2, 0]


def test_depths_tell_how_much_everybody_was_sent():
    tree = tree_of(((1, 2), 20, 2), ((1, 2, 3), 30, 0), ((9,), 10, 1))
    assert tree.depths((1, 2, 3, 4)) == {2: 20, 0: 30}
    assert tree.depths((5,)) == {}


def test_a_tree_that_is_shared_is_cut_down_as_a_whole():
    tree = tree_of(((1, 2), 20, 0), ((3,), 10, 1), ((4,), 10, 2))
    tree.evict_together(20)
    assert tree.sizes_tokens == [0, 10, 10]
