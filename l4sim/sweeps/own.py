"""Policies that a sweep is given as a name and a builder, and how they get to where points run."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from types import FunctionType

from l4sim.code_hash import importable, object_hash
from l4sim.errors import InputError
from l4sim.policies.policy import Builder, Policy, PolicyEntry, Setting


@dataclass(frozen=True, slots=True)
class OwnPolicy:
    """A policy of the user's own."""

    entry: PolicyEntry
    code_hash: str
    """Of what it does, as `l4sim.code_hash.object_hash` has it."""


def own_policy(entry: PolicyEntry, *, elsewhere: bool) -> OwnPolicy:
    """A policy as points take it along, which ``elsewhere`` run in other processes.

    Raises:
        InputError: it cannot be told when it has changed, or it cannot be sent there.
    """
    try:
        code_hash = object_hash((entry.build, entry.kind, entry.joins, entry.drains))
    except InputError as error:
        raise InputError(f"policy '{entry.name}': {error}") from None
    return OwnPolicy(replace(entry, build=_Sent(_pickled(entry))) if elsewhere else entry, code_hash)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A builder on its way: opened where it is called, so that one that fails to open fails as a point does."""

    pickled: bytes

    def __call__(self, setting: Setting) -> Policy:
        build: Builder = pickle.loads(self.pickled)
        return build(setting)


def _pickled(entry: PolicyEntry) -> bytes:
    """With cloudpickle, which comes with dask and submitit, whatever it can pickle; without, what can be imported."""
    build = entry.build
    try:
        from cloudpickle import dumps  # type: ignore[import-untyped]
    except ImportError:
        if isinstance(build, (FunctionType, type)) and not importable(build):
            reason = f"{build.__qualname__} is in no module that they can import"
            raise InputError(_refusal(entry, reason)) from None
        dumps = pickle.dumps
    try:
        pickled: bytes = dumps(build)
    except Exception as error:  # whatever an object's own way of being pickled may raise
        raise InputError(_refusal(entry, " ".join(str(error).split()))) from None
    return pickled


def _refusal(entry: PolicyEntry, reason: str) -> str:
    return (
        f"policy '{entry.name}' cannot be sent to other processes ({reason}): accepted is one of a module's, also by "
        "name as MODULE:ATTRIBUTE, an entry point l4sim.policies, or jobs=1; with cloudpickle installed, most others"
    )
