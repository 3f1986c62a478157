"""Blocks as counts."""

from __future__ import annotations

import pytest

from l4sim.engine.blocks import NO_MATCH, BlockPool, blocks_for
from l4sim.engine.request import Request


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_a_block_that_is_begun_is_taken_whole(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens, 16) == blocks


def test_what_is_taken_comes_back() -> None:
    pool = BlockPool(10, 16)
    pool.take(7)
    assert pool.free == 3
    pool.give(2)
    assert pool.free == 5
    # 33 tokens lie in 3 blocks; the remaining 2 are another request's.
    pool.release(Request(0, 0.0, 33, 1), 33, 33)
    assert (pool.free, pool.total) == (8, 10)


def test_more_than_there_is_cannot_be_taken() -> None:
    pool = BlockPool(10, 16)
    with pytest.raises(AssertionError, match="took 11 blocks of 10 free"):
        pool.take(11)


def test_nothing_is_found_again() -> None:
    pool = BlockPool(10, 16)
    request = Request(0, 0.0, 32, 4, block_keys=(range(2),))
    pool.take(2)
    pool.computed(request, 32)
    pool.release(request, 32, 32)
    assert pool.match(request) == NO_MATCH
    assert pool.free == 10
