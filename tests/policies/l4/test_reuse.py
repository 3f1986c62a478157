import numpy as np
import pytest

from l4sim.policies.l4.reuse import Reuse, measure_reuse, prefix_uses
from l4sim.workload.trace import PrefixBlocks

EDGES = np.array([0, 100, 1000])


def prefix_of(*rows):
    offsets = np.cumsum([0, *map(len, rows)])
    return PrefixBlocks(np.concatenate(rows).astype(np.int64), offsets.astype(np.int64), 16)


def test_where_a_prefix_was_used_before():
    # A session of three turns, and a stranger between them that shares the first block alone.
    uses = prefix_uses(
        np.array([40, 70, 30, 100]), prefix_of([1, 2, 3], [1, 2, 3, 4, 5], [1, 9], [1, 2, 3, 4, 5, 6, 7])
    )
    # The last block of a prompt is the beginning of the block of the same id.
    assert uses.tokens.tolist() == [0, 40, 16, 70]
    assert uses.earlier.tolist() == [-1, 0, 1, 1]
    # Half of the second turn's prefix had been seen once, half of the last one's twice.
    assert uses.turns.tolist() == [0, 1, 2, 2]
    # The second turn itself had 40 of these 70 tokens from the first.
    assert uses.growth[3] == pytest.approx(1 - 40 / 70)


def test_a_whole_prompt_seen_before_is_computed_but_for_one_token():
    uses = prefix_uses(np.array([32, 32]), prefix_of([1, 2], [1, 2]))
    assert uses.tokens.tolist() == [0, 31]


def test_prompts_without_blocks_reuse_nothing():
    uses = prefix_uses(np.array([5, 5]), prefix_of([], []))
    assert uses.tokens.tolist() == [0, 0]
    assert measure_reuse(uses, np.zeros(2), np.array([5, 5]), np.ones(2), EDGES) is None


def test_reuse_is_summed_by_the_buckets_of_both_prompts():
    uses = prefix_uses(np.array([64, 96, 160]), prefix_of([1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]))
    reuse = measure_reuse(uses, np.array([0, 10.0, 20.0]), np.array([64, 96, 160]), np.full(3, 2.0), EDGES)
    # 64 tokens from a short prompt to a short one, 96 from a short one to a long one.
    assert reuse.tokens_per_s.sum(axis=0).tolist() == [[128, 192], [0, 0]]
    assert reuse.within(((0, 1), (1, 2), (0, 2))).sum(axis=1).tolist() == [128, 0, 320]


def session(turns, growth=0.0, followed=False):
    """1000 tokens/s that come back every 10 s."""
    return Reuse(np.array([10.0]), np.array([float(turns)]), np.array([growth]), np.array([[[1000.0]]]), followed)


def held(reuse, instances, kept_s):
    return reuse.held_tokens_per_s(reuse.within(((0, 1),)), np.array([[instances]]), np.array([[kept_s]]))[0, 0]


def test_one_instance_holds_what_it_keeps_long_enough():
    assert held(session(5), 1.0, 11.0) == 1000
    assert held(session(5), 1.0, 9.0) == 0


def test_several_instances_hold_what_one_of_the_last_uses_left_there():
    # Of four instances, one of the last three uses met this one.
    assert held(session(30), 4.0, 30.0) == pytest.approx(1000 * (1 - 0.75**3))
    assert held(session(2), 4.0, 30.0) == pytest.approx(1000 * (1 - 0.75**2))


def test_older_uses_left_less():
    assert held(session(30, growth=0.1), 4.0, 30.0) == pytest.approx(1000 * (1 - 0.75**3) * 0.9)


def test_a_router_that_follows_prefixes_finds_what_is_kept():
    assert held(session(1, followed=True), 4.0, 11.0) == 1000
    assert held(session(30, followed=True), 4.0, 9.0) == 0


def test_what_another_stage_holds_is_in_reach_where_prefixes_are_followed():
    across = np.array([[[0, 8.0], [0, 0]]])
    for followed, reached in ((False, 0), (True, 8)):
        reuse = Reuse(np.ones(1), np.ones(1), np.zeros(1), across, followed)
        assert reuse.within(((0, 1), (1, 2), (0, 2))).tolist() == [[0], [reached], [8]]
