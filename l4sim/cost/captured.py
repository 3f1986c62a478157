"""CUDA graphs: an engine captures steps of some sizes, and pads every other step to the next larger one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike, NDArray

from l4sim.json_files import refuse_unsorted

Size = Annotated[int, Meta(ge=1, le=1 << 20)]


@dataclass(frozen=True, slots=True)
class Captured:
    """The captured sizes, ascending; empty where nothing is captured. Larger steps run as they are, without a graph."""

    decodes: tuple[Size, ...] = ()
    """Requests, where all of them decode."""
    steps: tuple[Size, ...] = ()
    """Tokens of all other steps."""

    def __post_init__(self) -> None:
        refuse_unsorted("decodes", self.decodes)
        refuse_unsorted("steps", self.steps)

    def within(self, max_requests: int, max_tokens: int) -> Captured:
        """What an engine with limited batches captures: no size beyond its limits, which are captured too."""
        return Captured(_up_to(self.decodes, max_requests), _up_to(self.steps, max_tokens))

    def decoding_rows(self, requests: ArrayLike) -> NDArray[np.int64]:
        """Rows of the batch in which so many requests are computed, where all of them decode."""
        count = np.asarray(requests, dtype=np.int64)
        largest = self.decodes[-1] if self.decodes else 0
        return np.where(count <= largest, padded(count, self.decodes), self.step_tokens(count))

    def step_tokens(self, tokens: ArrayLike) -> NDArray[np.int64]:
        """Tokens that are computed in a step with prompts that has so many."""
        return padded(tokens, self.steps)


NONE_CAPTURED = Captured()

_VLLM_LARGEST = 512


def vllm_captured(max_requests: int, max_tokens: int) -> Captured:
    """The sizes that vLLM captures unless it is told others (`VllmConfig._set_cudagraph_sizes`, 0.19 and 0.32).

    1, 2, 4, then every 8th up to 256 and every 16th up to twice the requests, at most 512, and what a step may have at
    most. Decode batches have graphs of their own up to the number of requests; steps with prompts run in pieces around
    attention.
    """
    largest = min(2 * max_requests, _VLLM_LARGEST, max_tokens)
    ladder = (1, 2, 4, *range(8, 256, 8), *range(256, _VLLM_LARGEST + 1, 16))
    steps = tuple(size for size in ladder if size <= largest)
    if max_tokens == largest > steps[-1]:
        steps = (*steps, max_tokens)
    return Captured(tuple(size for size in steps if size <= max_requests), steps)


def _up_to(sizes: tuple[int, ...], most: int) -> tuple[int, ...]:
    if not sizes or sizes[-1] <= most:
        return sizes
    return (*(size for size in sizes if size < most), most)


def padded(counts: ArrayLike, sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Each count's captured size, or itself beyond the largest; of the counts' shape."""
    count = np.asarray(counts, dtype=np.int64)
    if not sizes:
        return count
    ladder = np.array(sizes, dtype=np.int64)
    return np.where(count <= ladder[-1], ladder[np.minimum(np.searchsorted(ladder, count), len(ladder) - 1)], count)
