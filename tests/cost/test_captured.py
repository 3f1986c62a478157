"""What captured steps are padded to."""

import pytest

from l4sim.cost.captured import NONE_CAPTURED, Captured, padded, vllm_captured

CAPTURED = Captured(decodes=(1, 2, 4), steps=(3, 8, 12))


def test_a_count_is_padded_to_the_next_captured_size() -> None:
    assert padded([0, 1, 3, 4, 8, 9, 12], CAPTURED.steps).tolist() == [3, 3, 3, 8, 8, 12, 12]


def test_what_is_larger_runs_as_it_is() -> None:
    assert padded([12, 13, 100], CAPTURED.steps).tolist() == [12, 13, 100]


def test_decodes_too_many_for_their_own_sizes_are_padded_as_other_steps() -> None:
    assert CAPTURED.decoding_rows([1, 3, 4, 5, 9, 13]).tolist() == [1, 4, 4, 8, 12, 13]


def test_limits_of_batches_are_the_largest_sizes() -> None:
    assert CAPTURED.within(3, 10) == Captured((1, 2, 3), (3, 8, 10))
    assert CAPTURED.within(100, 100) == CAPTURED
    assert NONE_CAPTURED.within(3, 10) == NONE_CAPTURED


@pytest.mark.parametrize("count", [0, 1, 7])
def test_where_nothing_is_captured_nothing_is_padded(count: int) -> None:
    assert NONE_CAPTURED.decoding_rows(count) == NONE_CAPTURED.step_tokens(count) == count


@pytest.mark.parametrize(
    ("limits", "requests", "tokens"),
    [
        ((1024, 8192), 512, 512),
        ((128, 8192), 128, 256),
        ((100, 8192), 96, 200),
        ((1024, 300), 300, 300),
        ((1, 8192), 1, 2),
    ],
)
def test_an_engine_whose_graphs_nobody_told_captures_as_vllm_does(
    limits: tuple[int, int], requests: int, tokens: int
) -> None:
    """Up to twice the requests, 512 tokens at most, and no more than a step may have."""
    captured = vllm_captured(*limits)
    assert (captured.decodes[-1], captured.steps[-1]) == (requests, tokens)


def test_its_sizes_are_those_that_vllm_tells() -> None:
    """As ``resolved_config`` of a recorded vLLM 0.19 has them: 256 requests, 2,048 tokens."""
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
    assert vllm_captured(256, 2048).steps == sizes
    assert len(sizes) == 51
