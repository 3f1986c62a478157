"""Kinds of linear attention: a sequence keeps a state of fixed size, however long it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from l4sim.specs.dtypes import FORMATS, Dtypes, check_dtype, size_bytes
from l4sim.specs.matrix import Kept, Matrix


@dataclass(frozen=True, slots=True)
class Mamba:
    """A Mamba-2 mixer. Source: arXiv:2405.21060; sizes as vLLM's ``mamba2_state_shape``."""

    heads: int
    head_dim: int
    groups: int
    state_dim: int
    conv_width: int
    state_dtype: str = "float32"

    kind: ClassVar[str] = "Mamba-2"
    elementwise_kernels: ClassVar[int] = 0
    moved_elements: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_dtype(self.state_dtype, FORMATS)

    @property
    def conv_columns(self) -> int:
        """Columns that the convolution mixes: inputs, B and C."""
        return self.heads * self.head_dim + 2 * self.groups * self.state_dim

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Inputs (gate, convolved columns, step sizes), convolution, output."""
        inner = self.heads * self.head_dim
        return (
            Matrix("recurrent_in", inner + self.conv_columns + self.heads, hidden),
            Matrix("conv", self.conv_columns, self.conv_width),
            Matrix("recurrent_out", hidden, inner),
        )

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """The convolution's last inputs, and a state per head."""
        conv = size_bytes((self.conv_width - 1) * self.conv_columns, dtypes.activations)
        return (Kept(state_bytes=conv + size_bytes(self.heads * self.head_dim * self.state_dim, self.state_dtype)),)

    def of_rank(self, ranks: int) -> Mamba:
        """One rank's share; groups are replicated where there are fewer than ranks."""
        return replace(self, heads=self.heads // ranks, groups=max(1, self.groups // ranks))

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return f"does not divide {self.heads} Mamba heads" if self.heads % ranks else None


@dataclass(frozen=True, slots=True)
class GatedDeltaNet:
    """Linear attention by the gated delta rule. Source: arXiv:2412.06464; sizes as vLLM's Qwen3-Next."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int
    state_dtype: str = "bfloat16"

    kind: ClassVar[str] = "gated delta net"
    elementwise_kernels: ClassVar[int] = 0
    moved_elements: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_dtype(self.state_dtype, FORMATS)

    @property
    def conv_columns(self) -> int:
        """Columns that the convolution mixes: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries, keys and values; the output's gate; step size and decay of each head; convolution; output."""
        values = self.value_heads * self.value_dim
        return (
            Matrix("recurrent_in", self.conv_columns, hidden),
            Matrix("recurrent_gate", values, hidden),
            Matrix("recurrent_heads", 2 * self.value_heads, hidden),
            Matrix("conv", self.conv_columns, self.conv_width),
            Matrix("recurrent_out", hidden, values),
        )

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """The convolution's last inputs, and a state per value head."""
        conv = size_bytes((self.conv_width - 1) * self.conv_columns, dtypes.activations)
        state = size_bytes(self.value_heads * self.key_dim * self.value_dim, self.state_dtype)
        return (Kept(state_bytes=conv + state),)

    def of_rank(self, ranks: int) -> GatedDeltaNet:
        """One rank's share of the heads."""
        return replace(self, key_heads=self.key_heads // ranks, value_heads=self.value_heads // ranks)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        if self.key_heads % ranks or self.value_heads % ranks:
            return f"does not divide {self.key_heads} key heads and {self.value_heads} value heads"
        return None


@dataclass(frozen=True, slots=True)
class KimiDelta:
    """Kimi Delta Attention: the gated delta rule with a decay per channel. Source: arXiv:2510.26692."""

    heads: int
    head_dim: int
    conv_width: int
    full_rank_gate: bool = False
    """Whether the output's gate is one projection, and not by way of ``head_dim`` columns."""

    kind: ClassVar[str] = "Kimi delta attention"
    elementwise_kernels: ClassVar[int] = 0
    moved_elements: ClassVar[int] = 0

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries, keys and values; decay (down, up); step size; the output's gate; convolution; output."""
        columns = self.heads * self.head_dim
        gate = (
            (Matrix("recurrent_gate", columns, hidden),)
            if self.full_rank_gate
            else (
                Matrix("recurrent_gate", self.head_dim, hidden),
                Matrix("recurrent_gate", columns, self.head_dim),
            )
        )
        return (
            Matrix("recurrent_in", 3 * columns, hidden),
            Matrix("recurrent_decay", self.head_dim, hidden),
            Matrix("recurrent_decay", columns, self.head_dim),
            Matrix("recurrent_heads", self.heads, hidden),
            *gate,
            Matrix("conv", 3 * columns, self.conv_width),
            Matrix("recurrent_out", hidden, columns),
        )

    def kept(self, dtypes: Dtypes) -> tuple[Kept, ...]:
        """The convolutions' last inputs, and a float32 state per head."""
        conv = size_bytes((self.conv_width - 1) * 3 * self.heads * self.head_dim, dtypes.activations)
        return (Kept(state_bytes=conv + size_bytes(self.heads * self.head_dim**2, "float32")),)

    def of_rank(self, ranks: int) -> KimiDelta:
        """One rank's share of the heads."""
        return replace(self, heads=self.heads // ranks)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return f"does not divide {self.heads} heads" if self.heads % ranks else None
