"""Prompt and output lengths of requests, drawn together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from l4sim.workload.synth.checks import require
from l4sim.workload.synth.lengths import Lengths
from l4sim.workload.trace import FloatArray, IntArray, Trace

_MAX_TOKENS = 100_000_000.0


class JointLengths(Protocol):
    """Where the lengths of requests come from."""

    def draw(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """Prompt and output tokens of ``n`` requests, each of shape ``[n]`` and >= 1."""
        ...


@dataclass(frozen=True, slots=True)
class Coupled:
    """Two marginal distributions coupled by a Gaussian copula.

    ``spearman`` is the rank correlation of the drawn lengths (exactly so for continuous marginals). The copula's own
    parameter, the correlation of the two normal scores, follows from it as 2 sin(π/6 · spearman) (Kruskal 1958).
    """

    prompt: Lengths
    output: Lengths
    spearman: float = 0.0

    def __post_init__(self) -> None:
        require(-1 <= self.spearman <= 1, f"the correlation (Spearman) must be from -1 to 1, not {self.spearman}")

    def draw(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """See ``JointLengths``."""
        from scipy.special import ndtr

        correlation = 2 * math.sin(math.pi / 6 * self.spearman)
        first, second = rng.standard_normal((2, n))
        second = correlation * first + math.sqrt(max(0.0, 1 - correlation**2)) * second
        return _whole(self.prompt.quantile(ndtr(first))), _whole(self.output.quantile(ndtr(second)))


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Rows of an existing trace drawn with replacement: prompt and output stay together."""

    prompt_tokens: IntArray
    """Shape ``[rows]``, >= 1."""
    output_tokens: IntArray
    """Shape ``[rows]``, >= 1."""

    def __post_init__(self) -> None:
        require(
            len(self.prompt_tokens) == len(self.output_tokens) >= 1,
            f"bootstrap: {len(self.prompt_tokens)} prompt lengths for {len(self.output_tokens)} output lengths",
        )

    @classmethod
    def of(cls, trace: Trace) -> Self:
        """The joint lengths of a loaded trace."""
        return cls(trace.prompt_tokens, trace.output_tokens)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """See ``JointLengths``."""
        rows = rng.integers(len(self.prompt_tokens), size=n)
        return self.prompt_tokens[rows], self.output_tokens[rows]


def _whole(tokens: FloatArray) -> IntArray:
    """Lengths rounded to whole tokens, at least one. Raises InputError if one is longer than a trace can hold."""
    longest = float(np.max(tokens, initial=0.0))
    require(
        longest <= _MAX_TOKENS,
        f"a length of {longest:.3g} tokens was drawn, accepted are at most {_MAX_TOKENS:.0f}: truncate it",
    )
    return np.maximum(np.rint(tokens), 1).astype(np.int64)
