"""One iteration: tables and attention per layer; the first and the last of a segment."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from l4sim.batch import Batch
from l4sim.cost.iteration import IterationCost, LayersAttention, grown


@dataclass(frozen=True)
class SquaredLengths:
    """Not affine: tells whether lengths really grow one by one."""

    def attention_s(self, batch: Batch) -> float:
        return float((batch.decode_context_tokens**2).sum()) + 1000.0 * sum(c.chunk_tokens for c in batch.prefills)


COST = IterationCost(
    attention=SquaredLengths(),
    repeats=2,
    decodes_s=[0.25, 5.0, 6.0, 7.0],
    tokens_s=[0.0, 10.0, 20.0, 30.0, 40.0, 50.0],
    sampled_s=[0.0, 1.0, 2.0, 3.0],
)


def test_an_iteration_with_prompts_is_the_sum_of_its_parts(batch: Callable[..., Batch]) -> None:
    # 2 decoding and 3 prompt tokens, 3 sampled; attention 2 x (9 + 16 + 3,000).
    assert COST.iteration_s(batch([3, 4], [(3, 0)])) == 50 + 3 + 2 * (9 + 16 + 3000)


def test_decodes_alone_have_a_table_of_their_own(batch: Callable[..., Batch]) -> None:
    assert COST.iteration_s(batch([3, 4])) == 6 + 2 * (9 + 16)


def test_a_chunk_that_does_not_end_its_prompt_needs_no_lm_head(batch: Callable[..., Batch]) -> None:
    full = batch(prefills=[(3, 0)])
    part = full._replace(prefills=(full.prefills[0]._replace(samples=False),))
    assert COST.iteration_s(full) - COST.iteration_s(part) == 1.0


def test_layers_that_differ_are_a_sum_over_kinds(batch: Callable[..., Batch]) -> None:
    both = LayersAttention(((2, SquaredLengths()), (3, SquaredLengths())))
    assert both.attention_s(batch([3, 4])) == 5 * (9 + 16)


def test_a_segment_is_its_first_and_its_last_iteration(batch: Callable[..., Batch]) -> None:
    first = batch([3, 4])
    last = batch([7, 8])
    assert COST.decode_segment_s(first, 5) == (COST.iteration_s(first), COST.iteration_s(last))


def test_a_segment_that_hardly_grows_is_its_middle_iteration(batch: Callable[..., Batch]) -> None:
    first, middle = batch([100, 220]), batch([105, 225])
    assert COST.decode_segment_s(first, 11) == (COST.iteration_s(middle), COST.iteration_s(middle))
    # One iteration more, and its KV grows by more than a sixteenth.
    assert COST.decode_segment_s(first, 12) == (COST.iteration_s(first), COST.iteration_s(batch([111, 231])))


def test_a_segment_of_one_iteration_begins_and_ends_with_it(batch: Callable[..., Batch]) -> None:
    only = batch([3, 4])
    assert COST.decode_segment_s(only, 1) == (COST.iteration_s(only), COST.iteration_s(only))


def test_growing_leaves_the_engines_buffer_alone(batch: Callable[..., Batch]) -> None:
    before = batch([3, 4])
    after = grown(before, 10)
    assert before.decode_context_tokens.tolist() == [3, 4]
    assert (after.decode_context_tokens.tolist(), after.decode_context_sum) == ([13, 14], 27)


def test_more_tokens_than_were_tabulated_are_an_error_not_a_guess(batch: Callable[..., Batch]) -> None:
    with pytest.raises(IndexError):
        COST.iteration_s(batch(prefills=[(6, 0)]))
