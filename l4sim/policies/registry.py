"""Policies by name: a router, perhaps agents, perhaps a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from l4sim.errors import InputError
from l4sim.policies.agent import Agent, Coordinator
from l4sim.policies.l4.agent import L4Agent
from l4sim.policies.l4.partition import Partition
from l4sim.policies.l4.router import L4Router
from l4sim.policies.routers import VLLM, LeastOutstanding, PowerOfTwo, Random, RoundRobin, Router


@dataclass(frozen=True, slots=True)
class Setting:
    """What a policy may be built from."""

    instances: int
    seed: int
    partition: Callable[[], Partition]
    """Computes the plan for the traffic at hand; called only by policies that need one."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy ready to run: state of one run, not to be used for a second one."""

    router: Router
    agents: tuple[Agent, ...] = ()
    """None, or one per instance."""
    coordinator: Coordinator | None = None
    partition: Partition | None = None


def _l4(setting: Setting) -> Policy:
    partition = setting.partition()
    agents = tuple(L4Agent(instance, partition.plan) for instance in range(setting.instances))
    return Policy(L4Router(partition.plan), agents, partition=partition)


POLICIES: Mapping[str, Callable[[Setting], Policy]] = {
    "random": lambda setting: Policy(Random(setting.seed)),
    "round-robin": lambda setting: Policy(RoundRobin()),
    "least-outstanding": lambda setting: Policy(LeastOutstanding()),
    "power-of-two": lambda setting: Policy(PowerOfTwo(setting.seed)),
    "vllm": lambda setting: Policy(VLLM()),
    "l4": _l4,
}


def check_policy(name: str) -> None:
    """Raise InputError unless there is a policy of that name."""
    if name not in POLICIES:
        raise InputError(f"no policy '{name}': accepted are {', '.join(POLICIES)}")


def build_policy(name: str, setting: Setting) -> Policy:
    """A policy by name.

    Raises:
        InputError: no policy of that name, or it cannot be built for this setting.
    """
    check_policy(name)
    return POLICIES[name](setting)
