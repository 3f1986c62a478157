"""Where instances are: equal ones, placed on nodes in order."""

from __future__ import annotations

from dataclasses import dataclass

from l4sim.errors import InputError
from l4sim.specs.link import LINKS, Link


@dataclass(frozen=True, slots=True)
class Placement:
    """Instances of one model on equal GPUs; instance ``i`` takes GPUs ``[i * tensor_parallel, ...)``.

    Raises:
        InputError: a count below one, or an instance that would span nodes.
    """

    instances: int
    tensor_parallel: int = 1
    gpus_per_node: int = 8
    intra: Link = LINKS["nvlink"]
    """Between GPUs of one node."""
    inter: Link = LINKS["network-400g"]
    """Between GPUs of different nodes."""

    def __post_init__(self) -> None:
        for field in ("instances", "tensor_parallel", "gpus_per_node"):
            if getattr(self, field) < 1:
                raise InputError(f"cluster: {field} is {getattr(self, field)}, accepted is a whole number >= 1")
        if self.gpus_per_node % self.tensor_parallel:
            raise InputError(
                f"cluster: tensor_parallel {self.tensor_parallel} does not divide gpus_per_node {self.gpus_per_node}"
            )

    def node(self, instance: int) -> int:
        """The node that an instance's GPUs are on."""
        return instance * self.tensor_parallel // self.gpus_per_node

    def link(self, source: int, destination: int) -> Link:
        """The link from one instance to another: ``intra`` on the same node, else ``inter``.

        It is one GPU's; the ranks of an instance send their shares in parallel, each over its own.

        Raises:
            InputError: no such instance.
        """
        for instance in (source, destination):
            if not 0 <= instance < self.instances:
                raise InputError(f"cluster: no instance {instance}, accepted are 0 to {self.instances - 1}")
        return self.intra if self.node(source) == self.node(destination) else self.inter
