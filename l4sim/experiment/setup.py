"""Options made concrete: a fleet's groups of instances, each with its engine and cost model, and where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from l4sim import __version__
from l4sim.cost.communication import AllReduce
from l4sim.cost.model import CostModel
from l4sim.cost.profile import Profile
from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.policies.views import InstanceKind
from l4sim.specs.events import Event, Fail, joins
from l4sim.specs.fleet import FleetGroup
from l4sim.specs.link import Link
from l4sim.specs.model import Model
from l4sim.specs.options import Options
from l4sim.specs.placement import FleetPlacement, Placement


@dataclass(frozen=True, slots=True)
class GroupSetup:
    """A group of equal instances, with everything that a run needs of one of them."""

    spec: FleetGroup
    kind: InstanceKind
    """What policies may know."""
    profile: Profile
    kernel: str
    """Of the profile's attention kernels the one that runs."""
    engine: EngineConfig
    cost: CostModel
    intra: Link
    """Between GPUs of a node."""
    kv_bytes_per_token: int
    """Over all GPUs of an instance: what moves with a request. Where layers forget, of a context of 4,096 tokens."""
    basis: str
    """What the iterations' seconds rest on: what of it was measured."""
    all_reduce: AllReduce | None = None
    """Among an instance's GPUs; None where there is one."""

    def describe(self) -> dict[str, Any]:
        """What was resolved, enough to repeat the run."""
        return {
            "profile": {
                "name": self.profile.name,
                "basis": self.basis,
                "sha256": self.profile.content_hash,
                "kernel": self.kernel,
                "host_overhead": self.profile.host,
                "all_reduce": None
                if self.all_reduce is None
                else {"measured": self.all_reduce.measured, "source": self.all_reduce.source},
            },
            "engine": self.engine,
        }


@dataclass(frozen=True, slots=True)
class Setup:
    """Options made concrete: everything that a run needs but the trace and the policy."""

    options: Options
    model: Model
    groups: tuple[GroupSetup, ...]
    gpus_per_node: int
    placement: FleetPlacement
    """Of all instances, those that join during the run last."""
    events: tuple[Event, ...] = ()

    @property
    def instances(self) -> int:
        """Instances at the start."""
        return sum(group.spec.count for group in self.groups)

    @property
    def max_model_len(self) -> int:
        """The longest context in tokens, which is the same for all groups."""
        return self.groups[0].engine.max_model_len

    @property
    def kv_tokens(self) -> int:
        """KV tokens that the instances hold at the start, all together."""
        return sum(group.spec.count * group.engine.kv_tokens for group in self.groups)

    @property
    def gpus(self) -> int:
        """GPUs of the instances at the start."""
        return sum(group.spec.count * group.kind.tensor_parallel for group in self.groups)

    @property
    def failures(self) -> tuple[Fail, ...]:
        """The instances that die."""
        return tuple(event for event in self.events if isinstance(event, Fail))

    def group(self, name: str) -> GroupSetup:
        """The group of that name."""
        return next(group for group in self.groups if group.spec.name == name)

    def sole(self, need: str) -> GroupSetup:
        """The only group.

        Raises:
            InputError: there are several; ``need`` says what needs equal instances.
        """
        if len(self.groups) > 1:
            names = ", ".join(group.spec.name for group in self.groups)
            raise InputError(f"{need} needs equal instances, and those of groups {names} differ")
        return self.groups[0]

    # Of a fleet of one group; the others raise InputError.

    @property
    def profile(self) -> Profile:
        """The profile of equal instances."""
        return self.sole("one profile for all").profile

    @property
    def engine(self) -> EngineConfig:
        """The engine of equal instances."""
        return self.sole("one engine configuration for all").engine

    @property
    def cost(self) -> CostModel:
        """The cost model of equal instances."""
        return self.sole("one cost model for all").cost

    @property
    def cluster(self) -> Placement:
        """Where equal instances are."""
        group = self.sole("one placement for all")
        return Placement(
            self.instances, group.kind.tensor_parallel, self.gpus_per_node, group.intra, self.placement.inter
        )

    def each(self, change: Callable[[GroupSetup], GroupSetup]) -> Setup:
        """This setup with every group changed."""
        return replace(self, groups=tuple(change(group) for group in self.groups))

    def describe(self) -> dict[str, Any]:
        """What was resolved, enough to repeat the run; several groups are listed."""
        shared: dict[str, Any] = {
            "l4sim": __version__,
            "options": self.options,
            "model": self.model,
            "events": [{"event": type(event).__name__.lower(), **event._asdict()} for event in self.events],
        }
        if len(self.groups) == 1:
            return {**shared, **self.groups[0].describe(), "cluster": self.cluster}
        return {
            **shared,
            "groups": [
                {"group": group.spec, "kind": group.kind._asdict(), "intra": group.intra, **group.describe()}
                for group in self.groups
            ],
            "cluster": {
                "instances": self.instances,
                "gpus_per_node": self.gpus_per_node,
                "nodes": self.placement.nodes,
                "inter": self.placement.inter,
            },
        }


def instances_of(setup: Setup) -> tuple[GroupSetup, ...]:
    """The group of every instance that is there at the start, by the instance's number."""
    return tuple(group for group in setup.groups for _ in range(group.spec.count))


def joining_of(setup: Setup) -> tuple[GroupSetup, ...]:
    """The group of every instance that joins during the run; they are numbered on, in the order of `joins`."""
    return tuple(setup.group(join.group) for join in joins(setup.events))
