"""Blocks on slots and shared bandwidth, on cases small enough to work by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4sim.cost.attention.fluid import drain_s, issued_s, levels


def level_list(loads: list[float], counts: list[int], slots: int, together: int) -> tuple[list[float], list[int]]:
    steps = levels(loads, counts, slots, together)
    return [step_s for step_s, _ in steps], [at_work for _, at_work in steps]


def test_blocks_within_the_slots_run_empty_one_by_one() -> None:
    # Loads 5, 1, 3: all three work until 1, two until 3, one until 5.
    assert level_list([5.0, 1.0, 3.0], [1, 1, 1], slots=4, together=1) == ([1.0, 2.0, 2.0], [3, 2, 1])


def test_equal_blocks_run_empty_together() -> None:
    assert level_list([2.0, 2.0, 3.0], [1, 2, 1], slots=4, together=1) == ([2.0, 1.0], [4, 1])


def test_heads_of_a_block_take_as_many_slots() -> None:
    assert level_list([5.0, 1.0], [1, 2], slots=8, together=2) == ([1.0, 4.0], [6, 2])


def test_blocks_beyond_the_slots_wait_in_order() -> None:
    # Two slots: 4 and 1 start; 1 ends first and takes 2 (3 in all), then 3 joins it at 3 (6 in all).
    assert level_list([4.0, 1.0, 2.0, 3.0], [1, 1, 1, 1], slots=2, together=1) == ([4.0, 2.0], [2, 1])


def test_the_longest_block_costs_most_when_it_is_issued_last() -> None:
    first, _ = level_list([9.0, 1.0, 1.0, 1.0], [1, 1, 1, 1], slots=2, together=1)
    last, _ = level_list([1.0, 1.0, 1.0, 9.0], [1, 1, 1, 1], slots=2, together=1)
    assert sum(first) == 9.0
    assert sum(last) == 10.0


def test_grouped_slots_schedule_as_single_ones_do() -> None:
    rng = np.random.default_rng(0)
    loads, counts = rng.uniform(1, 9, 40).tolist(), rng.integers(0, 4, 40).tolist()
    one_by_one = [load for load, count in zip(loads, counts, strict=True) for _ in range(8 * count)]
    single, active = level_list(one_by_one, [1] * len(one_by_one), 132, 1)
    grouped, grouped_active = level_list(loads, counts, 132, 8)
    assert grouped == pytest.approx(single)
    assert grouped_active == active


def test_a_sequence_that_is_issued_twice_is_as_long_written_twice() -> None:
    loads, counts = [4.0, 1.0, 2.0], [1, 3, 2]
    assert levels(loads, counts, 3, passes=2) == levels(loads * 2, counts * 2, 3)


def test_many_equal_blocks_run_in_whole_waves() -> None:
    # Slots at 2, 1, 1 take three blocks of 4 each and one more: ends at 14, 13, 17.
    assert level_list([2.0, 1.0, 4.0], [1, 2, 10], slots=3, together=1) == ([13.0, 1.0, 3.0], [3, 2, 1])


def test_latency_rules_where_memory_is_idle() -> None:
    assert float(drain_s(np.array([2.0, 3.0]), np.zeros(2), sharpness=4.0)) == pytest.approx(5.0)


def test_memory_rules_where_all_slots_press() -> None:
    # 10 slots of load 1, 4 s of memory at full bandwidth: 10 * (4 / 10) = 4 times slower than the latency load.
    seconds = issued_s([1.0], [10], slots=10, together=1, exposed_s=0.0, memory_s=4.0, sharpness=100.0)
    assert seconds == pytest.approx(4.0)


def test_a_lone_long_block_is_not_held_up_by_memory() -> None:
    # Nine slots of load 1 and one of load 11, 4 s of memory for 20 of load: the first step is held up twofold by ten
    # slots (4 * 10 / 20), the last 10 by one slot not at all (4 / 20).
    seconds = issued_s([1.0, 11.0], [9, 1], slots=10, together=1, exposed_s=0.0, memory_s=4.0, sharpness=100.0)
    assert seconds == pytest.approx(1 * 2 + 10 * 1, rel=1e-2)


BLOCKS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), min_size=1, max_size=30)


@pytest.mark.slow
@given(BLOCKS, st.integers(1, 12), st.sampled_from([1, 2, 4]))
def test_every_load_is_served_and_no_schedule_beats_the_bounds(
    blocks: list[tuple[int, int]], slots: int, together: int
) -> None:
    loads, counts = [float(load) for load, _ in blocks], [count for _, count in blocks]
    steps, active = level_list(loads, counts, slots, together)
    total = together * sum(load * count for load, count in blocks)
    assert sum(step * at_work for step, at_work in zip(steps, active, strict=True)) == pytest.approx(total)
    longest = max((load for load, count in blocks if count), default=0)
    assert sum(steps) >= max(total / slots, longest) - 1e-9
    # Graham's bound for list scheduling.
    assert sum(steps) <= total / slots + longest * (1 - 1 / slots) + 1e-9


@pytest.mark.slow
@given(BLOCKS, st.data(), st.integers(1, 12))
def test_a_longer_block_never_shortens_the_schedule(
    blocks: list[tuple[int, int]], data: st.DataObject, slots: int
) -> None:
    loads, counts = [float(load) for load, _ in blocks], [count for _, count in blocks]
    longer = loads.copy()
    longer[data.draw(st.integers(0, len(blocks) - 1))] += data.draw(st.integers(1, 40))
    before, after = (sum(level_list(which, counts, slots, 1)[0]) for which in (loads, longer))
    assert after >= before - 1e-9


@pytest.mark.slow
@given(BLOCKS, st.integers(1, 12), st.floats(0.01, 100.0))
def test_one_batch_in_plain_numbers_is_as_many_in_arrays(
    blocks: list[tuple[int, int]], slots: int, memory_s: float
) -> None:
    loads, counts = [float(load) for load, _ in blocks], [count + 1 for _, count in blocks]
    steps, active = level_list(loads, counts, slots, 1)
    load_s = sum(load * count for load, count in zip(loads, counts, strict=True))
    pressure = (0.5 * sum(counts) + memory_s * np.array(active)) / load_s
    alone = issued_s(loads, counts, slots=slots, together=1, exposed_s=0.5, memory_s=memory_s, sharpness=3.0)
    assert alone == pytest.approx(float(drain_s(np.array(steps), pressure, 3.0)))
