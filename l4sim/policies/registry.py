"""Policies by name: which there are, and what a name or a policy of one's own is built into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from l4sim.errors import InputError
from l4sim.policies.bundled import BUNDLED
from l4sim.policies.policy import Policy, PolicyChoice, PolicyEntry, Setting

POLICIES: Mapping[str, PolicyEntry] = BUNDLED
"""By name."""


def check_policy(name: str) -> None:
    """Raise InputError unless there is a policy of that name."""
    if name not in POLICIES:
        raise InputError(f"no policy '{name}': accepted are {', '.join(POLICIES)}")


def policy_entry(choice: PolicyChoice) -> PolicyEntry:
    """What is known of a policy; one's own that comes as a name and a builder is a rival.

    Raises:
        InputError: no policy of that name, or one's own has a name that is taken.
    """
    if isinstance(choice, str):
        check_policy(choice)
        return POLICIES[choice]
    entry = choice if isinstance(choice, PolicyEntry) else PolicyEntry(*choice)
    if POLICIES.get(entry.name, entry) is not entry:
        raise InputError(f"'{entry.name}' is a bundled policy: call your own something else")
    return entry


def policy_name(choice: PolicyChoice) -> str:
    """The name of a policy; raises as `policy_entry`."""
    return policy_entry(choice).name


def build_policy(choice: PolicyChoice, setting: Setting) -> Policy:
    """A policy, by name or one's own.

    Raises:
        InputError: no policy of that name, it cannot be built for this setting, or its builder makes something else.
    """
    entry = policy_entry(choice)
    if entry.kind != "oracle":
        setting = replace(setting, output_tokens=lambda: _refuse_lengths(entry))
    built = entry.build(setting)
    if not isinstance(built, Policy):
        raise InputError(f"policy '{entry.name}': its builder must return a Policy, not a {type(built).__name__}")
    return replace(built, kind=entry.kind)


def check_fleet_changes(choice: PolicyChoice, policy: Policy, *, joins: bool, drains: bool) -> None:
    """Raise InputError unless a policy copes with instances that will join or drain during the run."""
    entry = policy_entry(choice)
    if joins and not entry.joins:
        raise InputError(f"policy '{entry.name}' takes in no instance that joins: accepted is a fleet that none joins")
    if joins and policy.agents and policy.agent_for is None:
        raise InputError(f"policy '{entry.name}' has agents but no agent_for, which makes that of one that joins")
    if drains and not entry.drains:
        raise InputError(f"policy '{entry.name}' empties no instance: accepted is a fleet that none drains from")


def _refuse_lengths(entry: PolicyEntry) -> Sequence[int]:
    raise InputError(
        f"policy '{entry.name}' asks for true output lengths, which no system knows: accepted from kind 'oracle', "
        f"and it is of kind '{entry.kind}'"
    )
