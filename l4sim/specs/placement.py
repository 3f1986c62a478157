"""Where instances are: on nodes, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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

    def lanes(self, source: int, destination: int) -> int:
        """How many GPUs send their shares side by side."""
        return self.tensor_parallel


class Links(Protocol):
    """What moving KV between instances depends on: the links between them."""

    def link(self, source: int, destination: int) -> Link:
        """The link from one instance to another, of one GPU."""
        ...

    def lanes(self, source: int, destination: int) -> int:
        """How many GPUs send their shares side by side."""
        ...


class Slot(NamedTuple):
    """What one instance takes of a node."""

    gpu: str
    """The kind of GPU: a node has GPUs of one kind."""
    gpus: int
    intra: Link
    """Between its GPUs, and to others' on its node."""


@dataclass(frozen=True, slots=True)
class FleetPlacement:
    """Where the instances of a fleet are, which may differ. Instance ``i`` takes ``slots[i]`` of node ``nodes[i]``."""

    slots: tuple[Slot, ...]
    nodes: tuple[int, ...]
    inter: Link
    """Between GPUs of different nodes."""

    @property
    def instances(self) -> int:
        """Instances in all, those that join later included."""
        return len(self.slots)

    def node(self, instance: int) -> int:
        """The node that an instance's GPUs are on."""
        return self.nodes[instance]

    def link(self, source: int, destination: int) -> Link:
        """The link from one instance to another: within their node the slower one's, else ``inter``.

        It is one GPU's: `lanes` says how many work side by side.

        Raises:
            InputError: no such instance.
        """
        for instance in (source, destination):
            if not 0 <= instance < self.instances:
                raise InputError(f"cluster: no instance {instance}, accepted are 0 to {self.instances - 1}")
        if self.nodes[source] != self.nodes[destination]:
            return self.inter
        return min(self.slots[source].intra, self.slots[destination].intra, key=lambda link: link.bytes_per_s)

    def lanes(self, source: int, destination: int) -> int:
        """The GPUs that send their shares side by side: those of the instance that has fewer."""
        return min(self.slots[source].gpus, self.slots[destination].gpus)


def place(slots: Sequence[Slot], gpus_per_node: int, inter: Link) -> FleetPlacement:
    """Put instances on nodes in order: each on the first node of its kind of GPU that has enough of them left.

    Raises:
        InputError: an instance that would span nodes.
    """
    kinds: list[str] = []
    """The kind of GPU of every node."""
    left: list[int] = []
    """GPUs that nobody has taken, by node."""
    nodes: list[int] = []
    for slot in slots:
        if gpus_per_node % slot.gpus:
            raise InputError(f"cluster: tensor_parallel {slot.gpus} does not divide gpus_per_node {gpus_per_node}")
        fitting = (node for node, kind in enumerate(kinds) if kind == slot.gpu and left[node] >= slot.gpus)
        node = next(fitting, len(kinds))
        if node == len(kinds):
            kinds.append(slot.gpu)
            left.append(gpus_per_node)
        left[node] -= slot.gpus
        nodes.append(node)
    return FleetPlacement(tuple(slots), tuple(nodes), inter)
