"""What routers write down of what they have sent where."""

from __future__ import annotations

import numpy as np

from l4sim.policies.books.active_blocks import ActiveBlocks
from l4sim.policies.books.block_lru import BlockLRU
from l4sim.policies.books.in_flight import InFlight
from tests.policies.conftest import View


def test_requests_in_flight_are_those_sent_and_not_ended():
    books = InFlight(2)
    for request, instance in ((0, 0), (1, 1), (2, 1)):
        books.send(request, instance)
    books.end(1)
    books.end(99)
    assert (books.counts, books.sent_ever) == ([1, 1], [1, 2])


def test_a_request_that_starts_over_elsewhere_counts_there_alone():
    books = InFlight(3)
    books.send(0, 0)
    books.send(1, 2)
    books.follow([1, 2, 3])
    books.send(0, 3)
    assert books.counts == [0, 1, 1]
    assert books.of([View(2), View(3)]) == [1, 1], "of some of them"
    books.end(0)
    assert books.counts == [0, 1, 0]


def test_a_memory_of_blocks_tells_how_many_leading_ids_each_instance_has():
    memory = BlockLRU(None)
    memory.use(0, (1, 2, 3))
    memory.use(1, (1, 2))
    memory.use(2, (7,))
    assert memory.depths((1, 2, 3, 4)) == {1: 2, 0: 3}
    assert memory.depths(()) == memory.depths((9,)) == {}
    memory.remove(0, (3, 99))
    assert memory.depths((1, 2, 3)) == {0: 2, 1: 2}
    memory.keep_only([1, 2])
    assert memory.depths((1, 2, 3)) == {1: 2}


def test_a_memory_with_a_capacity_forgets_what_was_used_longest_ago():
    memory = BlockLRU(3)
    memory.use(0, (2, 1))
    memory.use(0, (9,))
    memory.use(0, (2, 1))
    memory.use(0, (5,))
    assert memory.depths((9,)) == {}
    assert memory.depths((1, 2)) == {0: 2}


def test_depths_are_those_of_sets_of_ids():
    rng = np.random.default_rng(3)
    memory, sent = BlockLRU(None), [set[int]() for _ in range(4)]
    for _ in range(200):
        path = rng.integers(1, 3, rng.integers(1, 9)).tolist()
        ids = tuple(int("".join(map(str, path[: n + 1]))) for n in range(len(path)))
        expected = {i: len(sent[i].intersection(ids)) for i in range(4) if ids[0] in sent[i]}
        assert memory.depths(ids) == expected
        instance = int(rng.integers(4))
        memory.use(instance, ids)
        sent[instance].update(ids)


def test_blocks_in_use_are_counted_once_however_many_requests_share_them():
    books = ActiveBlocks(2, 10)
    books.send(0, 0, (1, 2), 25)
    books.send(1, 0, (1, 3), 20)
    assert books.tokens.tolist() == [35, 0], "three shared or own blocks, and 5 tokens behind them"
    assert books.shared_tokens((1, 2, 9)) == {0: 20}
    books.end(0)
    assert books.tokens.tolist() == [20, 0]
    assert books.shared_tokens((1, 2)) == {0: 10}
    books.follow([1, 2])
    books.end(1)
    assert books.tokens.tolist() == [0, 0]
    assert books.shared_tokens((1,)) == {}
