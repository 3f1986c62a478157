"""Grids: every combination of the values given for a key, from YAML or from Python."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_type_hints

from l4sim.errors import InputError
from l4sim.experiment import Options
from l4sim.policies.defaults import COMPARED
from l4sim.policies.policy import PolicyChoice, PolicyEntry
from l4sim.policies.registry import POLICIES, policy_entry
from l4sim.specs.option import described
from l4sim.specs.options import TraceOptions
from l4sim.specs.yaml_file import read_mapping
from l4sim.sweeps.points import LOADING, PACE, Value
from l4sim.workload.load import load_trace
from l4sim.workload.synth.named import ARRIVALS, PARAMETERS, synthesize_named
from l4sim.workload.synth.sessions import Sessions
from l4sim.workload.transform import pace

ALIASES = {
    "policy": "policies",
    "seeds": "seed",
    "preset": "lengths",
    **{
        option.flag.removeprefix("--").replace("-", "_"): option.name
        for option in (*described(TraceOptions), *described(Options))
    },
}
"""The command line's names, and singular and plural, for keys whose own name tells the unit."""


def _kind(hint: Any) -> type:
    """The kind of value for a parameter of this type, None aside; what is no number is written as text."""
    return next((kind for kind in (bool, int, float) if hint is kind or kind in get_args(hint)), str)


def _kinds(parameters: Any, names: Iterable[str]) -> dict[str, type]:
    hints = get_type_hints(parameters)
    return {name: _kind(hints[name]) for name in names}


_NOT_IN_GRID = ("seed", "concurrency", "parameters", "spelling")
_SYNTH_KINDS = {
    **_kinds(synthesize_named, (name for name in signature(synthesize_named).parameters if name not in _NOT_IN_GRID)),
    **{
        name: kind
        for made in (*ARRIVALS.values(), Sessions)
        for name, kind in _kinds(made, (field.name for field in fields(made) if field.name in PARAMETERS)).items()
    },
}
_KINDS = {
    "policies": str,
    "trace": str,
    **_kinds(load_trace, LOADING),
    **_kinds(pace, PACE),
    **_kinds(Options, (field.name for field in fields(Options))),
}
KEYS = (*_KINDS, "synth")
"""What a grid may name; below ``synth``, what `synthesize_named` takes."""


def read_grid(path: Path) -> dict[str, Any]:
    """The grid in a YAML file: keys with a value, or a list of values.

    Raises:
        InputError: the file cannot be read, is no mapping, or names a key twice.
    """
    return read_mapping(path, "rate: [10, 20]")


def grid_axes(grid: Mapping[str, Any], where: str = "grid") -> dict[str, list[Value]]:
    """The values of every key, under its own name (``synth.`` before those below ``synth``), policies first.

    A key's value is one value or a list of them; ``synth`` holds keys of its own. A policy of one's own is here by its
    name alone (see `own_policies`). ``where`` names the grid in messages.

    Raises:
        InputError: an unknown key, a value of the wrong kind, an empty list, or keys that exclude one another.
    """
    axes: dict[str, list[Value]] = {}
    for name, values in _flat(grid, where):
        if name in axes:
            raise InputError(f"{where}: key {name!r} is given twice")
        axes[name] = values
    if any(name.startswith("synth.") for name in axes):
        for name in ("trace", *LOADING):
            if name in axes:
                raise InputError(f"{where}: {name} is about a trace's file, and synth makes a trace: give one of them")
    policies = axes.pop("policies", list(COMPARED))
    return {"policy": policies, **axes}


def own_policies(grid: Mapping[str, Any]) -> dict[str, PolicyEntry]:
    """The policies of a grid that are not found by their names: pairs ``("mine", build)`` and entries, by name.

    Raises:
        InputError: as `grid_axes`.
    """
    given = [_choices(values) for name, values in grid.items() if ALIASES.get(name, name) == "policies"]
    entries = [policy_entry(choice) for choices in given for choice in choices if not isinstance(choice, str)]
    return {entry.name: entry for entry in entries if entry.name not in POLICIES}


def expand(axes: Mapping[str, Sequence[Value]]) -> list[dict[str, Value]]:
    """The settings of every point: all combinations, the last key changing fastest."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _flat(grid: Mapping[str, Any], where: str) -> Iterator[tuple[str, list[Value]]]:
    for given, values in grid.items():
        name = _known(given, KEYS, where)
        if name == "synth":
            if not isinstance(values, Mapping):
                raise InputError(f"{where}: synth: accepted are keys of its own: {', '.join(_SYNTH_KINDS)}")
            for inner, inner_values in values.items():
                inner_name = _known(inner, tuple(_SYNTH_KINDS), f"{where}: synth")
                yield f"synth.{inner_name}", _values(inner_values, _SYNTH_KINDS[inner_name], f"{where}: synth.{inner}")
        elif name == "policies":
            yield name, _values([_policy_name(choice, where) for choice in _choices(values)], str, f"{where}: {given}")
        else:
            yield name, _values(values, _KINDS[name], f"{where}: {given}")


def _choices(values: Any) -> list[PolicyChoice]:
    """The policies of a grid: one, or several; a pair of a name and a builder is one."""
    pair = isinstance(values, tuple) and any(map(callable, values))
    return [values] if pair or not isinstance(values, (list, tuple)) else list(values)


def _policy_name(choice: Any, where: str) -> str:
    try:
        return policy_entry(choice).name
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _known(given: Any, accepted: Sequence[str], where: str) -> str:
    """The key's own name."""
    name = ALIASES.get(given, str(given))
    if name not in accepted:
        close = difflib.get_close_matches(name, accepted, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"{where}: unknown key {given!r}{hint}; accepted are {', '.join(accepted)}")
    return name


def _values(values: Any, kind: type, where: str) -> list[Value]:
    listed = list(values) if isinstance(values, (list, tuple, range)) else [values]
    if not listed:
        raise InputError(f"{where}: the list is empty")
    checked = [_value(value, kind, where) for value in listed]
    if len(set(checked)) < len(checked):
        raise InputError(f"{where}: a value is given twice")
    return checked


def _value(value: Any, kind: type, where: str) -> Value:
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool) == isinstance(value, bool)
    if value is not None and not fits:
        raise InputError(f"{where}: {value!r} is not {names[kind]}")
    return float(value) if kind is float and value is not None else value
