"""A fleet: groups of instances of one model, equal within a group, and what happens to them during a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from l4sim.errors import InputError
from l4sim.specs.events import GROUP_NAME, KINDS, Event, parse_events, settle_events

ROLES = ("both", "prefill", "decode")
"""What an instance may do: everything, or only prompts, or only what follows them."""


@dataclass(frozen=True, slots=True)
class FleetGroup:
    """Equal instances.

    What is None is as the run's options of the same name say (`l4sim.specs.options.Options`).

    Raises:
        InputError: a name that cannot be one, no instance, or an unknown role.
    """

    name: str
    count: int
    """Instances at the start."""
    profile: str | None = None
    tensor_parallel: int | None = None
    role: str = "both"
    """One of `ROLES`."""
    intra_link: str | None = None
    kernel: str | None = None
    gpu_memory_utilization: float | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_blocks: int | None = None
    reserve_full_prompt: bool | None = None
    async_scheduling: bool | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(GROUP_NAME, self.name):
            raise InputError(f"a group cannot be called {self.name!r}: accepted are letters, digits, '.', '_' and '-'")
        if self.count < 1:
            raise InputError(f"group {self.name}: count is {self.count}, accepted is a whole number >= 1")
        if self.role not in ROLES:
            raise InputError(f"group {self.name}: no role {self.role!r}, accepted are {', '.join(ROLES)}")

    def overrides(self) -> dict[str, Any]:
        """The run's options that the group sets, by name."""
        given = {name: getattr(self, name) for name in _OVERRIDES}
        return {name: value for name, value in given.items() if value is not None}


_OVERRIDES = tuple(field.name for field in fields(FleetGroup) if field.name not in ("name", "count", "role"))


@dataclass(frozen=True, slots=True)
class Fleet:
    """Groups of instances on nodes; instances are numbered from 0, group after group.

    Raises:
        InputError: no group, two of one name, or events that its instances cannot have.
    """

    groups: tuple[FleetGroup, ...]
    gpus_per_node: int | None = None
    """None: as the run's options say; so are links."""
    inter_link: str | None = None
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        if not self.groups:
            raise InputError("a fleet has at least one group")
        for name, count in Counter(group.name for group in self.groups).items():
            if count > 1:
                raise InputError(f"{count} groups are called {name}: accepted is a name of its own for each")
        settle_events(self.events, self.counts, where="events: ")

    @property
    def counts(self) -> dict[str, int]:
        """Instances at the start, by group."""
        return {group.name: group.count for group in self.groups}

    def overrides(self) -> dict[str, Any]:
        """The run's options that the fleet sets for all groups, by name."""
        given = {"gpus_per_node": self.gpus_per_node, "inter_link": self.inter_link}
        return {name: value for name, value in given.items() if value is not None}

    def settled(self) -> Iterator[str]:
        """Names of the run's options that the fleet, or a group of it, decides: nobody else may."""
        yield "instances"
        yield from self.overrides()
        yield from dict.fromkeys(name for group in self.groups for name in group.overrides())


class _File(msgspec.Struct):
    """A fleet as a file tells it."""

    groups: list[FleetGroup]
    gpus_per_node: int | None = None
    inter_link: str | None = None
    events: list[dict[str, str | int | float]] = []


def read_fleet(path: Path) -> Fleet:
    """The fleet in a YAML file: `Fleet`'s keys, and under ``groups`` a list of `FleetGroup`'s.

    Each of ``events`` is a kind and when, written as on the command line: ``fail: 3@120s``, ``join: fast:2@300s``.

    Raises:
        InputError: what is not accepted, by file and key.
    """
    from l4sim.specs.yaml_file import read_mapping

    tree = read_mapping(path, "groups: [{name: fast, count: 4, profile: h200-flashinfer}]")
    _only(tree, [field.name for field in fields(Fleet)], str(path))
    listed = tree.get("groups")
    for number, group in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(group, dict):
            _only(group, [field.name for field in fields(FleetGroup)], f"{path}: groups[{number}]")
    try:
        content = msgspec.convert(tree, _File)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {_one_line(error)}") from None
    try:
        events = tuple(event for number, given in enumerate(content.events) for event in _events(given, number))
        return Fleet(tuple(content.groups), content.gpus_per_node, content.inter_link, events)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _events(given: Mapping[str, Any], number: int) -> Iterator[Event]:
    if len(given) != 1:
        raise InputError(f"events[{number}]: accepted is one of {', '.join(KINDS)}, such as 'fail: 3@120s'")
    _only(given, KINDS, f"events[{number}]")
    for kind, text in given.items():
        yield from parse_events(kind, str(text), f"events[{number}]: {kind}")


def _only(given: Mapping[Any, Any], accepted: list[str] | tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in accepted:
            raise InputError(f"{where}: unknown key {key!r}; accepted are {', '.join(accepted)}")


def _one_line(error: msgspec.ValidationError) -> str:
    """``groups[0].count: expected int, got str`` for what msgspec tells the other way round."""
    what, _, place = str(error).replace("`", "").partition(" - at $")
    return f"{place.lstrip('.')}: {what[0].lower()}{what[1:]}" if place else what
