"""The command line: parsing and printing. Each command lives in the module of its name, imported when it runs."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from l4sim import __version__
from l4sim.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# Name -> (module, help). The help stands here so that `l4sim --help` imports no command.
COMMANDS = {
    "compare": ("l4sim.cli.compare", "Replay a trace under several policies and compare them."),
    "replay": ("l4sim.cli.compare", "Replay a trace under one policy."),
    "gain": ("l4sim.cli.gain", "Say what a policy gains over its best rival, and by what."),
    "policies": ("l4sim.cli.policies", "List the policies, with what they follow."),
    "plan": ("l4sim.cli.plan", "Partition instances into length ranges for a trace."),
    "sweep": ("l4sim.cli.sweep", "Simulate a grid of settings, or search for capacity."),
    "trace": ("l4sim.cli.trace", "Describe, convert and generate traces."),
    "models": ("l4sim.cli.models", "Show what models hold: layers, parameters, weights, KV; what fits a GPU."),
    "profile": ("l4sim.cli.profile", "List, show, fit and measure GPU profiles."),
    "record": ("l4sim.cli.record", "Run vLLM and record what its engine does."),
    "validate": ("l4sim.cli.validate", "Hold the simulator against a real engine: recorded or live."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported only when they are called (start-up stays fast)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


class ExtensibleGroup(click.Group):
    """A group of commands, and those that other packages add at the entry points ``l4sim.commands.<group>``.

    Their modules must import fast: the group's help loads them.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, own ones first."""
        return [*super().list_commands(ctx), *self._extensions()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; None if there is none."""
        found = super().get_command(ctx, cmd_name)
        others = self._extensions() if found is None else {}
        return others[cmd_name].load() if cmd_name in others else found

    def _extensions(self) -> dict[str, EntryPoint]:
        from importlib.metadata import entry_points

        return {entry.name: entry for entry in entry_points(group=f"l4sim.commands.{self.name}")}


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="l4sim")
def cli() -> None:
    """Simulate length-aware scheduling of LLM inference across many instances."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; exit with 0 (done), 2 (wrong input, one line) or 1 (an internal error)."""
    try:
        result: Any = cli.main(args=argv, prog_name="l4sim", standalone_mode=False)
    except InputError as error:
        print(f"l4sim: {error}", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        print(f"l4sim: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except click.exceptions.Abort:
        print("l4sim: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)
