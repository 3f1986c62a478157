"""Steps that an engine runs as CUDA graphs: they are padded to the next size that was captured."""

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
    """Sizes, ascending; empty where nothing is captured. Larger steps run as they are."""

    decodes: tuple[Size, ...] = ()
    """Requests, where all of them decode."""
    steps: tuple[Size, ...] = ()
    """Tokens of all other steps."""

    def __post_init__(self) -> None:
        refuse_unsorted("decodes", self.decodes)
        refuse_unsorted("steps", self.steps)

    def within(self, max_requests: int, max_tokens: int) -> Captured:
        """What an engine captures whose batches are limited: its largest sizes are its limits."""
        return Captured(_up_to(self.decodes, max_requests), _up_to(self.steps, max_tokens))

    def decoding_rows(self, requests: ArrayLike) -> NDArray[np.int64]:
        """Rows that so many requests are computed in, where all of them decode."""
        count = np.asarray(requests, dtype=np.int64)
        largest = self.decodes[-1] if self.decodes else 0
        return np.where(count <= largest, padded(count, self.decodes), self.step_tokens(count))

    def step_tokens(self, tokens: ArrayLike) -> NDArray[np.int64]:
        """Tokens that a step with prompts of so many is computed as."""
        return padded(tokens, self.steps)


NONE_CAPTURED = Captured()


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
