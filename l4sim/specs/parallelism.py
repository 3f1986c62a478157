"""How the GPUs of one instance share a model: attention by heads and by requests, experts by slices and by number."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.errors import InputError
from l4sim.specs.dtypes import size_bytes
from l4sim.specs.layers import LayerGroup
from l4sim.specs.matrix import Matrix
from l4sim.specs.mlp import Experts
from l4sim.specs.model import Model


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Ranks of one instance, each a GPU.

    Attention and dense layers are split over ``tensor`` ranks, and there are ``attention_dp`` such groups, each with
    requests and KV of its own. Experts are shared by all ranks: ``expert`` groups of them hold different experts, and
    within a group every rank holds a slice of each (``moe_tensor``).

    Raises:
        InputError: a number below one, or expert groups that do not divide the ranks.
    """

    tensor: int = 1
    attention_dp: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        given = {"tensor": self.tensor, "attention data": self.attention_dp, "expert": self.expert}
        for name, ranks in given.items():
            if ranks < 1:
                raise InputError(f"{name} parallel is {ranks}, accepted is a whole number >= 1")
        if self.gpus % self.expert:
            raise InputError(
                f"expert parallel {self.expert} does not divide {self.gpus} GPUs (tensor parallel {self.tensor} x "
                f"attention data-parallel {self.attention_dp})"
            )

    @property
    def gpus(self) -> int:
        """Ranks in all."""
        return self.tensor * self.attention_dp

    @property
    def moe_tensor(self) -> int:
        """Ranks that share each expert."""
        return self.gpus // self.expert

    def check(self, model: Model) -> None:
        """Check that a model can be split so.

        Raises:
            InputError: heads, widths or experts that do not divide evenly (KV heads may be replicated instead).
        """
        for group in model.groups:
            problem = self._problem(group)
            if problem is not None:
                raise InputError(f"{model.name}: {problem}")
        if self.expert > 1 and not any(isinstance(group.mlp, Experts) for group in model.groups):
            raise InputError(f"{model.name}: expert parallel {self.expert}, and it has no experts")

    def _problem(self, group: LayerGroup) -> str | None:
        split = group.attention.unsplittable(self.tensor)
        if split is None and not isinstance(group.mlp, Experts):
            split = group.mlp.unsplittable(self.tensor)
        if split is not None:
            return f"tensor parallel {self.tensor} {split}"
        if not isinstance(group.mlp, Experts):
            return None
        if group.mlp.shared % self.tensor:
            return f"tensor parallel {self.tensor} does not divide intermediate size {group.mlp.shared}"
        if group.mlp.intermediate % self.moe_tensor:
            return f"tensor parallel {self.moe_tensor} does not divide intermediate size {group.mlp.intermediate}"
        if group.mlp.experts % self.expert:
            return f"expert parallel {self.expert} does not divide {group.mlp.experts} experts"
        return None

    def rank_weight_bytes(self, model: Model) -> float:
        """Bytes of weights that one rank holds.

        Attention, dense and shared MLPs, embedding and head are split over ``tensor`` ranks, experts over all.
        """
        sliced = spread = 0
        for group in model.groups:
            for matrix in group.matrices(model.hidden):
                taken = group.count * size_bytes(matrix.parameters, group.dtypes.of(matrix.part))
                if is_expert(matrix):
                    spread += taken
                else:
                    sliced += taken
        ends = model.weight_bytes - sliced - spread
        return (sliced + ends) / self.tensor + spread / self.gpus


def is_expert(matrix: Matrix) -> bool:
    """Whether a matrix is one of routed experts, of which a token uses some."""
    return matrix.part in ("expert_up", "expert_down")


ONE_GPU = Parallelism()
