"""What may come from outside the package: policies, cost models, engine rules and trace formats, found by name.

A name is looked for among those bundled; then among the entry points of installed packages; and a name that reads
``module:attribute`` is imported. So no package can take a bundled name for something else.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from l4sim.code_hash import sources_hash
from l4sim.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

MISSING = {
    "l4sim.policies": "no policy '{}': accepted are {}",
    "l4sim.costs": "no cost model '{}': accepted are {}",
    "l4sim.engines": "no engine rules '{}': accepted are {}",
    "l4sim.formats": "unknown trace format '{}'; known are auto, {}",
}
"""The groups of entry points, and what is said where one has no such name."""

_MODULE_ATTRIBUTE = re.compile(r"[\w.]+:[\w.]+")


def find(group: str, name: str, bundled: Mapping[str, object]) -> object:
    """What ``name`` stands for: a bundled thing, an entry point of ``group``, or ``module:attribute``.

    Modules are looked for where Python looks, and in the working directory after that.

    Raises:
        InputError: there is no such thing, several packages offer it, or its module cannot be imported.
    """
    if name in bundled:
        return bundled[name]
    return _load(_entry(group, name, bundled), bundled)


def outside_code(group: str, name: str, bundled: Mapping[str, object]) -> str | None:
    """The hash of the code behind a name, as `l4sim.code_hash.sources_hash` has it; None for a bundled name.

    With an entry point's code counts the version of its distribution.

    Raises:
        InputError: as `find`.
    """
    if name in bundled:
        return None
    entry = _entry(group, name, bundled)
    _load(entry, bundled)
    version = "" if entry.dist is None else f"{entry.dist.version}:"
    return f"{version}{entry.value}:{sources_hash(entry.module)}"


def _entry(group: str, name: str, bundled: Iterable[str]) -> EntryPoint:
    from importlib.metadata import EntryPoint, entry_points

    offered = entry_points(group=group)
    # By value: a package that is found twice (installed, and in the working directory) offers one thing.
    found = {entry.value: entry for entry in offered if entry.name == name}
    if len(found) > 1:
        raise InputError(f"'{name}' is offered by several packages: accepted is one of {', '.join(sorted(found))}")
    if found:
        [entry] = found.values()
        return entry
    if _MODULE_ATTRIBUTE.fullmatch(name):
        return EntryPoint(name, name, group)
    raise InputError(_missing(group, name, [*bundled, *sorted({entry.name for entry in offered})]))


def _load(entry: EntryPoint, bundled: Iterable[str]) -> object:
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        # Behind all others, where it hides nothing.
        sys.path.append(folder)
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{entry.module}.".startswith(f"{error.name}."):
            raise InputError(f"'{entry.name}': {entry.module} cannot be imported ({error})") from error
        raise InputError(f"{_missing(entry.group, entry.name, bundled)}; there is no module '{error.name}'") from None
    except Exception as error:  # whatever another's module may raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"'{entry.name}': {entry.module} cannot be imported ({reason})") from error
    try:
        return attrgetter(entry.attr)(module)
    except AttributeError as error:
        raise InputError(f"'{entry.name}': {' '.join(str(error).split())}") from None


def _missing(group: str, name: str, accepted: Iterable[str]) -> str:
    accepted = list(accepted)
    close = difflib.get_close_matches(name, accepted, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return (
        f"{MISSING[group].format(name, ', '.join(accepted))}, other packages' by the entry point {group}, "
        f"or MODULE:ATTRIBUTE{hint}"
    )
