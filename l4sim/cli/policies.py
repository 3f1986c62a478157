"""`l4sim policies`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from l4sim.cli.grouped import GroupedCommand

if TYPE_CHECKING:
    from l4sim.policies.policy import PolicyEntry


@click.command(cls=GroupedCommand)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout.")
def policies(name: str | None, as_json: bool) -> None:
    """List the policies there are, or tell of the one called NAME.

    NAME may also be that of another package, or MODULE:ATTRIBUTE.
    """
    from l4sim.policies.registry import POLICIES, policy_entry
    from l4sim.results.write import dump_json

    entries = list(POLICIES.values()) if name is None else [policy_entry(name)]
    if as_json:
        told = [_as_dict(entry) for entry in entries]
        click.echo(dump_json(told if name is None else told[0]), nl=False)
    elif name is None:
        width = max(len(entry.name) for entry in entries)
        for entry in entries:
            click.echo(f"{entry.name:<{width}}  {entry.kind:<8}  {entry.summary}  [{entry.source}]")
    else:
        for key, value in _as_dict(entries[0]).items():
            click.echo(f"{key:<8}  {value}")


def _as_dict(entry: PolicyEntry) -> dict[str, str]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "summary": entry.summary or "not told",
        "source": entry.source or "not told",
    }
