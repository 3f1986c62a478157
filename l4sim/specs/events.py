"""What happens to a fleet's instances during a run: some join, some drain, some die."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from l4sim.errors import InputError

GROUP_NAME = r"[A-Za-z][\w.-]*"
_SECONDS = r"(?P<time_s>\d+(?:\.\d*)?|\.\d+)s?"


class Fail(NamedTuple):
    """An instance dies for good, and what it holds is lost."""

    instance: int
    time_s: float

    def __str__(self) -> str:
        return f"fail {self.instance}@{self.time_s:g}s"


class Drain(NamedTuple):
    """An instance takes no new requests from then on, and leaves when it holds none."""

    instance: int
    time_s: float

    def __str__(self) -> str:
        return f"drain {self.instance}@{self.time_s:g}s"


class Join(NamedTuple):
    """One more instance of a group is ready.

    Joining instances are numbered on from the initial ones, in the order in which they join.
    """

    group: str
    """Its name; empty for the only group there is."""
    time_s: float

    def __str__(self) -> str:
        return f"join {self.group}{':' if self.group else ''}1@{self.time_s:g}s"


Event = Fail | Drain | Join


class _Spelling(NamedTuple):
    """How a kind of event is written."""

    pattern: re.Pattern[str]
    accepted: str
    make: Callable[[re.Match[str]], Sequence[Event]]


_INSTANCE = re.compile(rf"(?P<instance>\d+)@{_SECONDS}")
_SPELLINGS = {
    "fail": _Spelling(
        _INSTANCE,
        "INSTANCE@SECONDS, such as 3@120s",
        lambda found: [Fail(int(found["instance"]), float(found["time_s"]))],
    ),
    "drain": _Spelling(
        _INSTANCE,
        "INSTANCE@SECONDS, such as 3@120s",
        lambda found: [Drain(int(found["instance"]), float(found["time_s"]))],
    ),
    "join": _Spelling(
        re.compile(rf"(?:(?P<group>{GROUP_NAME}):)?(?P<count>[1-9]\d*)@{_SECONDS}"),
        "[GROUP:]COUNT@SECONDS, such as 2@300s",
        lambda found: [Join(found["group"] or "", float(found["time_s"]))] * int(found["count"]),
    ),
}

KINDS = tuple(_SPELLINGS)
"""The words for the kinds of events."""


def parse_events(kind: str, text: str, where: str | None = None) -> tuple[Event, ...]:
    """Events of one of `KINDS`, written as ``3@120s`` (or ``fast:2@300s`` to join), several separated by commas.

    ``where`` names their place in messages; None: the command line's option.

    Raises:
        InputError: not written so.
    """
    spelling, where = _SPELLINGS[kind], where or f"--{kind}"
    events: list[Event] = []
    for part in text.split(","):
        found = spelling.pattern.fullmatch(part.strip())
        if found is None:
            raise InputError(f"{where} '{part.strip()}': accepted is {spelling.accepted}")
        events.extend(spelling.make(found))
    return tuple(events)


def settle_events(events: Sequence[Event], counts: Mapping[str, int], where: str = "--") -> tuple[Event, ...]:
    """The events as a fleet can have them, every `Join` with its group's name; ``counts`` are the groups' instances.

    ``where`` stands before an event in messages, as it does before its option.

    Raises:
        InputError: no such instance, or not there any more or not yet; no such group, or one has to be named.
    """
    groups = tuple(counts)
    settled = tuple(_named(event, groups, where) if isinstance(event, Join) else event for event in events)
    born_s = [0.0] * sum(counts.values()) + [join.time_s for join in joins(settled)]
    seen: set[tuple[type, int]] = set()
    for event in settled:
        if isinstance(event, Join):
            continue
        kind, verb = type(event), "dies" if isinstance(event, Fail) else "drains"
        if event.instance >= len(born_s):
            raise InputError(f"{where}{event}: no instance {event.instance}; accepted are 0 to {len(born_s) - 1}")
        if event.time_s < born_s[event.instance]:
            raise InputError(f"{where}{event}: instance {event.instance} joins at {born_s[event.instance]:g} s only")
        if (kind, event.instance) in seen:
            raise InputError(f"{where}{event}: instance {event.instance} {verb} twice; accepted is one time for each")
        seen.add((kind, event.instance))
    return settled


def joins(events: Sequence[Event]) -> tuple[Join, ...]:
    """The instances that join, in the order of their numbers."""
    return tuple(sorted((event for event in events if isinstance(event, Join)), key=lambda join: join.time_s))


def _named(join: Join, groups: tuple[str, ...], where: str) -> Join:
    if not join.group and len(groups) == 1:
        return join._replace(group=groups[0])
    if join.group not in groups:
        wrong = "no such group" if join.group else "name its group"
        raise InputError(f"{where}{join}: {wrong}; accepted are {', '.join(groups)}")
    return join
