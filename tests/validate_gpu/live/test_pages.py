import numpy as np
import pytest

from l4sim.engine.request import Request
from validate_gpu.live.pages import PagedPool


def taken(total: int, blocks: int, **options: int) -> PagedPool:
    pool = PagedPool(total, 4, **options)
    pool.take(blocks)
    return pool


def test_a_request_grows_page_by_page_and_keeps_the_pages_it_has():
    pool = taken(10, 3)
    first = pool.grow(7, 5).tolist()
    assert len(first) == 2
    assert pool.grow(7, 8).tolist() == first
    assert pool.grow(7, 9).tolist()[:2] == first
    assert pool.pages_held == 3


def test_no_page_has_two_owners():
    pool = taken(10, 10)
    held = [pool.grow(request, tokens).copy() for request, tokens in ((1, 9), (2, 4), (3, 17), (1, 16))][1:]
    assert sorted(np.concatenate(held)) == list(range(10))


def test_released_pages_serve_others():
    pool = taken(3, 3)
    pages = sorted(pool.grow(1, 12))
    pool.release(Request(1, 0.0, 12, 1), 12, 12)
    assert pool.pages_held == 0
    pool.take(3)
    assert sorted(pool.grow(2, 12)) == pages


def test_pages_begin_where_the_instance_has_its_part_of_the_memory():
    assert sorted(taken(5, 5, first_page=20).grow(0, 20)) == [20, 21, 22, 23, 24]


def test_more_pages_than_the_engine_has_taken_are_a_disagreement():
    with pytest.raises(AssertionError, match="request 1 needs 2 pages"):
        taken(10, 1).grow(1, 8)


def test_a_release_of_other_blocks_than_are_held_is_a_disagreement():
    pool = taken(10, 3)
    pool.grow(1, 8)
    with pytest.raises(AssertionError, match="holds 2 pages for 12 tokens"):
        pool.release(Request(1, 0.0, 12, 1), 12, 12)


def test_what_was_never_there_can_be_discarded():
    pool = taken(10, 3)
    pool.discard(99)
    assert pool.pages_held == 0
    assert pool.pages(99).tolist() == []
