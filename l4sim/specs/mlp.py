"""Kinds of MLP: dense ones, and mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from l4sim.specs.matrix import Matrix, Product


@dataclass(frozen=True, slots=True)
class DenseMLP:
    """A gated MLP (SwiGLU, arXiv:2002.05202)."""

    intermediate: int

    kind: ClassVar[str] = "dense MLP"
    elementwise_kernels: ClassVar[int] = 1
    """The activation."""

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Its weights, merged as vLLM does: gate and up, down."""
        return Matrix("up", 2 * self.intermediate, hidden), Matrix("down", hidden, self.intermediate)

    def products(self, hidden: int) -> tuple[Product, ...]:
        """Its matrix products."""
        return tuple((matrix.n, matrix.k) for matrix in self.matrices(hidden))

    @property
    def activation_elements(self) -> int:
        """Elements per token between its products: gate, up and what they make."""
        return 3 * self.intermediate

    @property
    def moved_elements(self) -> int:
        """Elements per token that its element-wise kernel reads and writes: these."""
        return self.activation_elements

    def of_rank(self, ranks: int) -> DenseMLP:
        """One rank's share."""
        return DenseMLP(self.intermediate // ranks)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return _unsplittable(self.intermediate, ranks)


@dataclass(frozen=True, slots=True)
class UngatedMLP:
    """An MLP of two products without a gate, as Nemotron-H's (squared ReLU)."""

    intermediate: int

    kind: ClassVar[str] = "ungated MLP"
    elementwise_kernels: ClassVar[int] = 1
    """The activation."""

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Up, down."""
        return Matrix("up", self.intermediate, hidden), Matrix("down", hidden, self.intermediate)

    @property
    def activation_elements(self) -> int:
        """Elements per token between its products, before and after the activation."""
        return 2 * self.intermediate

    @property
    def moved_elements(self) -> int:
        """Elements per token that its element-wise kernel reads and writes: these."""
        return self.activation_elements

    def of_rank(self, ranks: int) -> UngatedMLP:
        """One rank's share."""
        return UngatedMLP(self.intermediate // ranks)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return _unsplittable(self.intermediate, ranks)


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: a router sends each token to some, and all tokens pass the shared ones.

    Source: DeepSeekMoE, arXiv:2401.06066; with a latent size, experts work on fewer columns than the model has, to
    which a projection leads and from which another leads back (Nemotron 3 Super, Kimi K3).
    """

    experts: int
    per_token: int
    intermediate: int
    shared: int = 0
    """Width of all shared experts together."""
    shared_gate: bool = False
    """Whether a gate weighs the shared experts' output."""
    gated: bool = True
    """Whether experts are gated MLPs; shared ones are as these."""
    latent: int | None = None

    kind: ClassVar[str] = "experts"

    @property
    def elementwise_kernels(self) -> int:
        """The choice of experts, and the shared ones' activation; routed ones' is in their own kernel."""
        return 2 if self.shared else 1

    @property
    def moved_elements(self) -> int:
        """Elements per token that these read and write: the router's, and between the shared experts' products."""
        return self.experts + (3 if self.gated else 2) * self.shared

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Router, the latent's projections, experts, shared experts and their gate."""
        width = hidden if self.latent is None else self.latent
        ups = 2 if self.gated else 1
        found = [
            Matrix("router", self.experts, hidden),
            Matrix("expert_up", ups * self.intermediate, width, self.experts, self.per_token),
            Matrix("expert_down", width, self.intermediate, self.experts, self.per_token),
        ]
        if self.latent is not None:
            found += [Matrix("expert_latent", self.latent, hidden), Matrix("expert_latent", hidden, self.latent)]
        if self.shared:
            found += [Matrix("shared_up", ups * self.shared, hidden), Matrix("shared_down", hidden, self.shared)]
        if self.shared_gate:
            found.append(Matrix("shared_gate", 1, hidden))
        return tuple(found)

    @property
    def activation_elements(self) -> int:
        """Elements per token between the products of the experts that it passes, the shared ones included."""
        return (3 if self.gated else 2) * (self.per_token * self.intermediate + self.shared)

    def of_rank(self, ranks: int) -> Experts:
        """One rank's share: a slice of every expert."""
        return replace(self, intermediate=self.intermediate // ranks, shared=self.shared // ranks)

    def unsplittable(self, ranks: int) -> str | None:
        """Why so many ranks cannot share it evenly; None if they can."""
        return _unsplittable(self.intermediate, ranks) or _unsplittable(self.shared, ranks)


def _unsplittable(intermediate: int, ranks: int) -> str | None:
    return f"does not divide intermediate size {intermediate}" if intermediate % ranks else None
