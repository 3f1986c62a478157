"""One option, described once: what it means, its unit, its group, and which values it takes.

Command line, docstrings and checks are all made from it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from textwrap import fill
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from l4sim.errors import InputError

Value = TypeVar("Value")
Class = TypeVar("Class", bound=type)

_KEY = "option"
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of an option besides its name, type and default, which its dataclass field has."""

    text: str
    """What it means, in a few words."""
    group: str
    """The heading that it stands under."""
    unit: str = ""
    """Of its value; the command line shows it as the value's name."""
    unset: str = ""
    """What None stands for."""
    flag: str = ""
    """The command line's name for it where that is not the field's own."""
    choices: tuple[str, ...] = ()
    """The texts that it takes; none: any."""
    repeated: bool = False
    """Whether its text lists several, separated by commas: on the command line it may be given again."""
    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf

    def range_text(self) -> str:
        """The range of its numbers in words; empty if there is none."""
        limits = (
            ("of at least {:g}", self.at_least),
            ("above {:g}", self.above),
            ("of at most {:g}", self.at_most),
        )
        return " and ".join(words.format(limit) for words, limit in limits if math.isfinite(limit))

    def takes(self, value: float) -> bool:
        """Whether a number is in its range; NaN never is."""
        return self.at_least <= value <= self.at_most and value > self.above


class Described(NamedTuple):
    """An option with what its field adds."""

    name: str
    """In Python."""
    kind: type
    """bool, int, float, str or Path."""
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return self.option.flag or "--" + self.name.replace("_", "-")


def option(
    default: Value,
    text: str,
    group: str,
    *,
    unit: str = "",
    unset: str = "",
    flag: str = "",
    choices: tuple[str, ...] = (),
    repeated: bool = False,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    above: float = -math.inf,
) -> Value:
    """The field of a dataclass that is an option, described as `Option` says; to a type checker it is its default."""
    described = Option(text, group, unit, unset, flag, choices, repeated, at_least, at_most, above)
    made: Any = field(default=default, metadata={_KEY: described})
    return made  # type: ignore[no-any-return]


def described(options: type) -> tuple[Described, ...]:
    """The options of a dataclass, in order."""
    hints = get_type_hints(options)
    return tuple(
        Described(each.name, _kind(hints[each.name]), each.default, each.metadata[_KEY]) for each in fields(options)
    )


def documented(options: Class) -> Class:
    """Append what every field means to a dataclass's docstring."""
    options.__doc__ = "\n".join([(options.__doc__ or "").rstrip(), "", "    Fields:", *_field_lines(options)])
    return options


def check(options: object) -> None:
    """Check the values of a dataclass's options.

    Raises:
        InputError: a value of the wrong kind or out of range; the message names the option and what it takes.
    """
    for each in described(type(options)):
        value = getattr(options, each.name)
        if value is None and (each.default is None or each.option.unset):
            continue
        if not _fits(each, value):
            raise InputError(f"{each.name} must be {_accepted(each)}, not {value!r}")


def _fits(each: Described, value: Any) -> bool:
    if each.kind is bool:
        return isinstance(value, bool)
    if each.kind in (int, float):
        number = isinstance(value, int if each.kind is int else (int, float)) and not isinstance(value, bool)
        return number and each.option.takes(value)
    if each.kind is Path:
        # Whoever reads it says what is wrong with it.
        return True
    return isinstance(value, str) and (not each.option.choices or value in each.option.choices)


def _accepted(each: Described) -> str:
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    if each.option.choices:
        return f"one of {', '.join(each.option.choices)}"
    return " ".join(filter(None, (words[each.kind], each.option.range_text())))


def _kind(hint: Any) -> type:
    """The one kind of value that a type names, None aside."""
    named = get_args(hint) or (hint,)
    kinds = [kind for kind in (bool, int, float, Path, os.PathLike, str) if kind in named]
    if not kinds:
        raise TypeError(f"an option cannot be of type {[each for each in named if each is not NoneType]}")
    return Path if kinds[0] is os.PathLike else kinds[0]


def _field_lines(options: type) -> Iterator[str]:
    group = ""
    each: Field[Any]
    for each in fields(options):
        about: Option = each.metadata[_KEY]
        if about.group != group:
            group = about.group
            yield f"      {group}:"
        unit = f" ({about.unit})" if about.unit else ""
        default = about.unset if each.default is None else repr(each.default)
        line = f"{each.name}{unit}: {about.text}" + (f" [default: {default}]" if default else "")
        yield fill(line, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 10, break_on_hyphens=False)
