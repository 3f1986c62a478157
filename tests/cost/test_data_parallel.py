"""Data-parallel attention: requests are dealt to ranks, and all wait for the slowest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.data_parallel import DataParallelCost, deal
from l4sim.cost.iteration import IterationCost


@dataclass(frozen=True)
class ByTokens:
    """A microsecond for every token that is attended to."""

    def attention_s(self, batch: Batch) -> float:
        prompts = sum(chunk.chunk_tokens * chunk.cached_tokens for chunk in batch.prefills)
        return 1e-6 * (batch.decode_context_sum + prompts)


RANK = IterationCost(
    ByTokens(),
    repeats=2,
    decodes_s=[0.001 * rows for rows in range(100)],
    tokens_s=[0.01 * tokens for tokens in range(100)],
    sampled_s=[0.1 * rows for rows in range(100)],
)
COST = DataParallelCost(RANK, 2)


def batch(contexts: list[int], *prefills: tuple[int, int]) -> Batch:
    return Batch(np.array(contexts, dtype=np.int64), sum(contexts), tuple(Prefill(*chunk) for chunk in prefills))


def test_requests_go_to_ranks_in_turn_and_chunks_to_the_one_with_fewest_tokens() -> None:
    one, other = deal(batch([10, 20, 30], (8, 0), (4, 0)), 2)
    assert (one.decode_context_tokens.tolist(), other.decode_context_tokens.tolist()) == ([10, 30], [20])
    assert (one.decode_context_sum, other.decode_context_sum) == (40, 20)
    assert (one.prefills, other.prefills) == ((Prefill(4, 0),), (Prefill(8, 0),))


def test_a_step_takes_the_largest_ranks_rows_and_the_longest_attention() -> None:
    # The first rank has two rows; the other's one is the longer.
    assert COST.iteration_s(batch([10, 900, 30])) == pytest.approx(0.002 + 2 * 900e-6)


def test_ranks_that_only_decode_wait_for_the_one_with_a_prompt() -> None:
    # Nine tokens on the rank with the prompt; two sampled there.
    assert COST.iteration_s(batch([10, 20], (8, 3))) == pytest.approx(0.09 + 0.2 + 2 * (10e-6 + 24e-6))


def test_equal_requests_on_two_ranks_take_what_half_of_them_take_on_one() -> None:
    assert COST.iteration_s(batch([100] * 8)) == RANK.iteration_s(batch([100] * 4))


def test_segments_end_where_contexts_have_grown() -> None:
    first_s, last_s = COST.decode_segment_s(batch([10, 10]), 101)
    assert (first_s, last_s) == (COST.iteration_s(batch([10, 10])), COST.iteration_s(batch([110, 110])))
    middle_s = COST.iteration_s(batch([1005, 1005]))
    assert COST.decode_segment_s(batch([1000, 1000]), 11) == (middle_s, middle_s)
