"""`l4sim gain`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from l4sim.cli.grouped import GroupedCommand, grouped
from l4sim.cli.run_options import load_from_options, run_options, setup_from_options
from l4sim.policies.defaults import RIVALS, SOLE
from l4sim.specs.options import EVENTS, POLICIES

if TYPE_CHECKING:
    from rich.table import Table

    from l4sim.gain import Gain

_CAUSES = (
    ("kernel", "kernel heterogeneity", "unequal lengths cost nothing"),
    ("isolation", "isolation from prefills", "nor do prompts"),
    ("memory", "KV memory", "and KV memory is ample"),
    ("balancing", "balancing", "(what is left)"),
)


@click.command(cls=GroupedCommand)
@run_options(without=(EVENTS,))
@grouped(POLICIES, "--policy", default=SOLE, show_default=True, help="Whose gain is told.")
@grouped(
    POLICIES, "--rivals", default=",".join(RIVALS), show_default=True, metavar="A,B,…", help="The best of them counts."
)
def gain(as_json: bool, policy: str, rivals: str, **values: Any) -> None:
    """Say what a policy gains over its best rival on TRACE, and by what.

    Without a TRACE, a bundled long-context example.
    """
    from l4sim.policies.registry import check_policy

    named = [name.strip() for name in rivals.split(",") if name.strip()]
    for name in (policy, *named):
        check_policy(name)
    trace = load_from_options(values)
    setup = setup_from_options(values)

    from l4sim.gain import explain_gain

    explained = explain_gain(trace, setup.options, named, policy)
    if as_json:
        from l4sim.results.write import dump_json

        click.echo(dump_json(asdict(explained) | {"config": setup.describe()}), nl=False)
        return
    from rich.console import Console

    from l4sim.results.comparison_text import heading

    console = Console(highlight=False)
    console.print(heading(trace, setup))
    if explained.finished < len(trace):
        console.print(f"[bold red]{explained.finished:,} of {len(trace):,} requests finished under every policy[/]")
    console.print(_rivals(explained))
    console.print(_parts(explained))
    console.print(
        f"spread of lengths within batches (std / mean): {explained.spread:.2f} under {policy}, "
        f"{explained.rival_spread:.2f} under {explained.rival}; {explained.handovers:,} handovers"
    )


def _rivals(explained: Gain) -> Table:
    """Mean normalized latency under the policy and its rivals, best first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("policy")
    table.add_column("normalized latency, mean (ms)", justify="right")
    for name, mean_s in sorted(explained.normalized_latency_s.items(), key=lambda item: item[1]):
        table.add_row(name, f"{1e3 * mean_s:,.2f}")
    return table


def _parts(explained: Gain) -> Table:
    """The gain over the best rival, in percent, and its parts."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, show_footer=True)
    table.add_column("cause", footer=f"gain of {explained.policy} over {explained.rival}")
    table.add_column("of latency", justify="right", footer=f"{explained.total:+.1%}")
    table.add_column(" lost where")
    for name, cause, removed in _CAUSES:
        table.add_row(cause, f"{getattr(explained, name):+.1%}", f" {removed}")
    return table
