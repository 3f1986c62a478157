"""Policies by name: a router, perhaps agents, perhaps a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from l4sim.errors import InputError
from l4sim.policies.l4.agent import LEVELS, L4Agent, Parts
from l4sim.policies.l4.replan import Replanner
from l4sim.policies.l4.router import L4Router
from l4sim.policies.policy import Builder, Policy, PolicyChoice, Setting
from l4sim.policies.rivals.least_harm import LeastHarm
from l4sim.policies.rivals.llumnix import LlumnixAgent, LlumnixCoordinator, LlumnixRouter
from l4sim.policies.rivals.oracle import OracleLength
from l4sim.policies.rivals.pools import TwoPools, split_pools
from l4sim.policies.rivals.sglang.bucket import Bucket
from l4sim.policies.rivals.sglang.cache_aware import CacheAware
from l4sim.policies.routers import VLLM, LeastOutstanding, PowerOfTwo, Random, RoundRobin


def _l4(setting: Setting, parts: Parts | None = None) -> Policy:
    parts = parts or Parts()
    partition = setting.partition()
    plan = partition.plan
    affinity = None if setting.affinity is None else setting.affinity()
    if affinity is not None:
        # Who is where its prefix lives follows no boundary: stages' loads say nothing about where one belongs.
        parts = replace(parts, refinement=False)
    batches = [forecast.batch for forecast in partition.forecasts]
    agents = tuple(
        L4Agent(instance, plan, batches, parts=parts, seed=setting.seed) for instance in range(setting.instances)
    )
    router = L4Router(plan, affinity, spill=parts.across)
    return Policy(
        router,
        agents,
        Replanner(partition, setting.planning()) if parts.replan else None,
        partition=partition,
        boundary_moves=router.moves,
    )


def _llumnix(setting: Setting) -> Policy:
    agents = tuple(LlumnixAgent() for _ in range(setting.instances))
    return Policy(LlumnixRouter(setting.instances), agents, LlumnixCoordinator())


POLICIES: Mapping[str, Builder] = {
    "random": lambda setting: Policy(Random(setting.seed)),
    "round-robin": lambda setting: Policy(RoundRobin()),
    "least-outstanding": lambda setting: Policy(LeastOutstanding()),
    "power-of-two": lambda setting: Policy(PowerOfTwo(setting.seed)),
    "vllm": lambda setting: Policy(VLLM()),
    "llumnix": _llumnix,
    "sglang-cache-aware": lambda setting: Policy(CacheAware(setting.instances, setting.prefix_id_tokens)),
    "sglang-bucket": lambda setting: Policy(Bucket(setting.instances)),
    "two-pools": lambda setting: Policy(TwoPools(split_pools(*setting.sample_lengths(), setting.instances))),
    "least-harm": lambda setting: Policy(LeastHarm()),
    "oracle-length": lambda setting: Policy(OracleLength(setting.instances, setting.output_tokens())),
    "l4": _l4,
    **{f"l4:{level}": partial(_l4, parts=parts) for level, parts in LEVELS.items()},
}
"""By name; `l4:plan` to `l4:across` are L4's ablations, each with one part more than the one before; `l4:replan`
has one more than `l4`."""


def check_policy(name: str) -> None:
    """Raise InputError unless there is a policy of that name."""
    if name not in POLICIES:
        raise InputError(f"no policy '{name}': accepted are {', '.join(POLICIES)}")


def policy_name(choice: PolicyChoice) -> str:
    """The name of a policy, known to be one of `POLICIES` or one's own.

    Raises:
        InputError: no policy of that name, or one's own has a name that is taken.
    """
    if isinstance(choice, str):
        check_policy(choice)
        return choice
    name, _ = choice
    if name in POLICIES:
        raise InputError(f"'{name}' is a bundled policy: call your own something else")
    return name


def build_policy(choice: PolicyChoice, setting: Setting) -> Policy:
    """A policy, by name or one's own.

    Raises:
        InputError: no policy of that name, it cannot be built for this setting, or its builder makes something else.
    """
    name = policy_name(choice)
    built = (POLICIES[choice] if isinstance(choice, str) else choice[1])(setting)
    if not isinstance(built, Policy):
        raise InputError(f"policy '{name}': its builder must return a Policy, not a {type(built).__name__}")
    return built
