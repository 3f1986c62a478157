"""What layers are made of: matrices of weights, and what a sequence keeps in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from l4sim.specs.dtypes import Dtypes

Product = tuple[int, int]
"""``(n, k)`` of a matrix product ``[tokens, k] x [k, n]``, and so of the weights that it reads."""


class Matrix(NamedTuple):
    """Weights ``[n, k]`` of one part of a layer, merged as vLLM does, or several alike of which a token uses some."""

    part: str
    """What it is for: a key of `l4sim.specs.quantization.MODULES`, which has its names in checkpoints."""
    n: int
    k: int
    copies: int = 1
    used: int = 1
    """How many of the copies one token is multiplied with."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.copies * self.n * self.k

    @property
    def active_parameters(self) -> int:
        """Number of weights that one token is multiplied with."""
        return self.used * self.n * self.k


@dataclass(frozen=True, slots=True)
class Kept:
    """What one sequence keeps in one layer, in bytes."""

    entry_bytes: int = 0
    """Of one entry of its KV cache."""
    window_tokens: int | None = None
    """How many tokens back entries are kept; None for all."""
    tokens_per_entry: int = 1
    state_bytes: int = 0
    """However long the sequence."""

    @property
    def every_token(self) -> bool:
        """Whether it is one entry for every token, and nothing else."""
        return self.window_tokens is None and self.tokens_per_entry == 1 and not self.state_bytes

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a further token adds while the window has room, rounded up."""
        return -(-self.entry_bytes // self.tokens_per_entry)

    def bytes(self, tokens: int) -> int:
        """Bytes that a sequence of so many tokens keeps."""
        seen = tokens if self.window_tokens is None else min(tokens, self.window_tokens)
        return self.state_bytes + seen // self.tokens_per_entry * self.entry_bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """No attention, or no MLP, as in layers that are the other alone."""

    kind: ClassVar[str] = "none"
    activation_elements: ClassVar[int] = 0
    elementwise_kernels: ClassVar[int] = 0
    moved_elements: ClassVar[int] = 0

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """None."""
        return ()

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """Nothing."""
        return ()

    def of_rank(self, ranks: int) -> Absent:
        """The same nothing."""
        return self

    def unsplittable(self, ranks: int) -> str | None:
        """Nothing can be shared evenly by any number."""
        return None
