"""What a window or a chunk sees of a batch."""

import numpy as np
import pytest

from l4sim.batch import Batch, Prefill
from l4sim.cost.attention.windowed import WindowedAttention, seen
from tests.cost.attention.recorded_batches import NONE, Recording, decodes


def test_a_window_caps_what_a_long_request_costs() -> None:
    batch = seen(decodes(5, 128, 4000), 128)
    assert batch.decode_context_tokens.tolist() == [5, 128, 128]
    assert batch.decode_context_sum == 261


def test_a_chunk_ends_what_a_request_sees_at_its_begin() -> None:
    """The token that follows 128 begins the second chunk, and sees itself alone."""
    assert seen(decodes(5, 128, 129, 300), 128, chunked=True).decode_context_tokens.tolist() == [5, 128, 1, 44]


def test_prompts_within_a_window_are_as_they_are() -> None:
    batch = Batch(NONE, 0, (Prefill(100, 0), Prefill(20, 90)))
    assert seen(batch, 128).prefills == (Prefill(100, 0), Prefill(20, 90))


def test_beyond_it_every_tile_of_rows_sees_the_window_before_it() -> None:
    batch = seen(Batch(NONE, 0, (Prefill(500, 0),)), 128)
    assert batch.prefills == (Prefill(128, 0), Prefill(128, 128), Prefill(128, 128), Prefill(116, 128))
    assert seen(Batch(NONE, 0, (Prefill(200, 5000),)), 128).prefills == (Prefill(128, 128), Prefill(72, 128))


@pytest.mark.parametrize("window", [128, 1024, 4096])
def test_rows_see_a_window_and_their_tile_however_they_are_cut(window: int) -> None:
    """Pairs of a query and a key that are loaded, of 128 rows at a time: all see the window before the first row."""
    tokens = 8 * window
    pieces = seen(Batch(NONE, 0, (Prefill(tokens, window),)), window).prefills
    loaded = sum(
        128 * (piece.cached_tokens + row + 128) for piece in pieces for row in range(0, piece.chunk_tokens, 128)
    )
    assert sum(piece.chunk_tokens for piece in pieces) == tokens
    assert loaded == pytest.approx(tokens * (window + 128), rel=0.01)


def test_prompts_are_cut_where_chunks_begin() -> None:
    batch = seen(Batch(NONE, 0, (Prefill(300, 100),)), 128, chunked=True)
    assert batch.prefills == (Prefill(28, 100), Prefill(128, 0), Prefill(128, 0), Prefill(16, 0))


def test_the_kernel_is_asked_for_what_is_seen() -> None:
    kernel = Recording()
    WindowedAttention(kernel, 128).attention_s(decodes(1000, 50))
    assert np.array_equal(kernel.batches[0].decode_context_tokens, [128, 50])
