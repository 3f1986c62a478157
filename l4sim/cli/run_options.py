"""The options that compare, replay, gain, plan and validate share, and the trace and setup that they amount to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from l4sim.cli.grouped import grouped, options_of
from l4sim.specs.options import GROUPS, OUTPUT, Options, TraceOptions

if TYPE_CHECKING:
    from l4sim.experiment import Setup
    from l4sim.workload.trace import Trace

READING = ("format", "time_unit", "tokens", "trace_block_size", "dejitter_s", "limit")
"""Options that say how a trace file is read; the others pace what was read."""

_EXCLUSIVE = {"rate_per_s": "--rate", "rate_scale": "--rate-scale", "concurrency": "--concurrency"}
"""Options that say how often requests arrive: at most one of them is given."""

Command = TypeVar("Command", bound=Callable[..., Any])


def run_options(*, without: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Give a command TRACE and the options of `TraceOptions` and `Options`, by their Python names, and ``--json``.

    ``without`` are groups of options that would change nothing in this command.
    """
    groups = tuple(group for group in GROUPS if group not in without)

    def decorate(command: Command) -> Command:
        command = grouped(OUTPUT, "--json", "as_json", is_flag=True, help="Machine-readable on stdout.")(command)
        command = options_of(Options, groups)(command)
        command = options_of(TraceOptions, groups)(command)
        return click.argument("trace", required=False, type=click.Path(path_type=Path))(command)

    return decorate


def load_from_options(values: dict[str, Any]) -> Trace:
    """The trace that the options name, cut and paced as they say; its warnings go to stderr.

    Raises:
        InputError: the trace cannot be read, or the options do not go together.
    """
    from l4sim.bundled import DEFAULT_TRACE, folder
    from l4sim.errors import InputError
    from l4sim.workload.load import load_trace
    from l4sim.workload.transform import pace

    given = [flag for name, flag in _EXCLUSIVE.items() if values[name] is not None]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} exclude one another")
    path = values["trace"] or folder("traces") / DEFAULT_TRACE
    trace = load_trace(path, **{name: values[name] for name in READING})
    trace = pace(trace, **{name: values[name] for name in (*_EXCLUSIVE, "duration_s", "seed")})
    for warning in trace.warnings:
        click.echo(f"{trace.name}: {warning}", err=True)
    return trace


def setup_from_options(values: dict[str, Any]) -> Setup:
    """What the options amount to besides the trace.

    Raises:
        InputError: an unknown name, a value out of range, or an option that the fleet has decided.
    """
    from l4sim.experiment import resolve
    from l4sim.experiment.resolving import fleet_of, refuse_beside

    options = Options(**{field.name: values[field.name] for field in fields(Options) if field.name in values})
    context = click.get_current_context(silent=True)
    if options.fleet is not None and context is not None:
        # Even one at its default, which `resolve` cannot tell from one that is not given.
        sources = {name: context.get_parameter_source(name) for name in values}
        refuse_beside(
            fleet_of(options), [name for name, source in sources.items() if source is ParameterSource.COMMANDLINE]
        )
    return resolve(options)
