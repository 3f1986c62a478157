"""Options in groups, made from the one place where they are described."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from l4sim.specs.option import Described, described
from l4sim.specs.options import GROUPS

Command = TypeVar("Command", bound=Callable[..., Any])

_OTHER = "Options"


class GroupedOption(click.Option):
    """An option that stands under a heading."""

    def __init__(self, *arguments: Any, group: str, **known: Any) -> None:
        super().__init__(*arguments, **known)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help shows options by group: first the groups that all commands know, in their order."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of options."""
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                rows.setdefault(getattr(parameter, "group", _OTHER), []).append(row)
        for group, written in rows.items():
            if written:
                with formatter.section(group):
                    formatter.write_dl(written)


def grouped(group: str, *declared: str, **known: Any) -> Callable[[Command], Command]:
    """An option of a command's own, under a heading."""
    return click.option(*declared, cls=GroupedOption, group=group, **known)


def options_of(described_by: type, groups: tuple[str, ...] = GROUPS) -> Callable[[Command], Command]:
    """Give a command the options of a dataclass that stand in these groups, under the dataclass's names."""

    def decorate(command: Command) -> Command:
        for each in reversed(described(described_by)):
            if each.option.group in groups:
                command = _option(each)(command)
        return command

    return decorate


def _option(each: Described) -> Callable[[Command], Command]:
    option = each.option
    if each.kind is bool:
        off = each.flag.replace("--", "--no-", 1)
        return grouped(
            option.group, f"{each.flag}/{off}", each.name, default=each.default, show_default=True, help=option.text
        )
    again = " May be given again." if option.repeated else ""
    return grouped(
        option.group,
        each.flag,
        each.name,
        type=_type(each),
        default=each.default,
        show_default=option.unset or each.default is not None,
        metavar=option.unit.upper() or None,
        multiple=option.repeated,
        callback=_joined if option.repeated else None,
        help=option.text + again,
    )


def _joined(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> str | None:
    return ",".join(given) if given else None


def _type(each: Described) -> click.ParamType[Any]:
    option = each.option
    if option.choices:
        return click.Choice(option.choices)
    if each.kind is Path:
        return click.Path(path_type=Path)
    if each.kind is str:
        return click.STRING
    low = option.above if math.isfinite(option.above) else option.at_least
    limits: dict[str, Any] = {
        "min": low if math.isfinite(low) else None,
        "max": option.at_most if math.isfinite(option.at_most) else None,
        "min_open": math.isfinite(option.above),
    }
    return click.IntRange(**limits) if each.kind is int else click.FloatRange(**limits)
