"""Policies by name: which there are, and what a name or a policy of one's own is built into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from l4sim.errors import InputError
from l4sim.plugins import find
from l4sim.policies.bundled import BUNDLED, RENAMED
from l4sim.policies.policy import Builder, Policy, PolicyChoice, PolicyEntry, Setting

POLICIES: Mapping[str, PolicyEntry] = MappingProxyType(BUNDLED)
"""Those that are bundled, by name. Read-only: what were added here, other processes would not know."""

GROUP = "l4sim.policies"
"""Where other packages offer policies of theirs, as entry points."""


def check_policy(name: str) -> None:
    """Raise InputError unless there is a policy of that name."""
    policy_entry(name)


def policy_entry(choice: PolicyChoice) -> PolicyEntry:
    """What is known of a policy; what comes as a builder alone is a rival.

    Raises:
        InputError: no policy of that name (see `l4sim.plugins.find`), or none any more (see `RENAMED`); or one's own
            has a name that is taken.
    """
    if isinstance(choice, str):
        return _entry_named(choice)
    entry = choice if isinstance(choice, PolicyEntry) else _entry_of_pair(choice)
    if POLICIES.get(entry.name, entry) is not entry:
        raise InputError(f"'{entry.name}' is a bundled policy: call your own something else")
    return entry


def _entry_named(name: str) -> PolicyEntry:
    if name in RENAMED:
        raise InputError(f"there is no policy '{name}' any more: it is called {RENAMED[name]}")
    found = find(GROUP, name, POLICIES)
    if isinstance(found, PolicyEntry):
        return replace(found, name=name)
    if not callable(found):
        raise InputError(
            f"policy '{name}' is a {type(found).__name__}: accepted is what builds a Policy, or a PolicyEntry"
        )
    return PolicyEntry(name, found)


def _entry_of_pair(pair: tuple[str, Builder]) -> PolicyEntry:
    match pair:
        case (str(name), build) if callable(build):
            return PolicyEntry(name, build)
    raise InputError(f"{pair!r} is no policy: accepted is a name, a PolicyEntry, or ('mine', what builds it)")


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


def check_fleet(choice: PolicyChoice, policy: Policy, *, joins: bool, drains: bool, roles: bool) -> None:
    """Raise InputError unless a policy copes with instances that will join or drain, or that have roles."""
    entry = policy_entry(choice)
    if joins and not entry.joins:
        raise InputError(f"policy '{entry.name}' takes in no instance that joins: accepted is a fleet that none joins")
    if joins and policy.agents and policy.agent_for is None:
        raise InputError(f"policy '{entry.name}' has agents but no agent_for, which makes that of one that joins")
    if drains and not entry.drains:
        raise InputError(f"policy '{entry.name}' empties no instance: accepted is a fleet that none drains from")
    if roles and not entry.roles:
        raise InputError(f"policy '{entry.name}' heeds no roles: accepted are groups whose role is both")


def _refuse_lengths(entry: PolicyEntry) -> Sequence[int]:
    raise InputError(
        f"policy '{entry.name}' asks for true output lengths, which no system knows: accepted from kind 'oracle', "
        f"and it is of kind '{entry.kind}'"
    )
