"""`l4sim plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from l4sim.cli.run_options import load_from_options, run_options, setup_from_options

if TYPE_CHECKING:
    from l4sim.policies.l4.partition import Partition


@click.command()
@run_options
def plan(as_json: bool, **values: Any) -> None:
    """Partition instances into length ranges for TRACE.

    Without a TRACE, a bundled long-context example.
    """
    trace = load_from_options(values)
    setup = setup_from_options(values)

    from l4sim.replay import timed_plan

    partition, planning_s = timed_plan(trace, setup)
    if as_json:
        from l4sim.results.write import dump_json

        click.echo(dump_json(_as_dict(partition, planning_s)), nl=False)
    else:
        _print(partition, planning_s)


def _as_dict(partition: Partition, planning_s: float) -> dict[str, Any]:
    stages = [
        {
            "lo_tokens": stage.lo_tokens,
            "hi_tokens": stage.hi_tokens,
            "instances": list(stage.instances),
            "load": forecast.overload,
            "batch": forecast.batch,
            "tpot_s": forecast.tpot_s,
            "ttft_s": forecast.ttft_s,
            "normalized_latency_s": _finite(forecast.normalized_latency_s),
        }
        for stage, forecast in zip(partition.plan.stages, partition.forecasts, strict=True)
    ]
    return {
        "stages": stages,
        "planning_s": planning_s,
        "objective": "mean normalized latency",
        "normalized_latency_s": _finite(partition.normalized_latency_s),
        "feasible": partition.feasible,
    }


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None


def _print(partition: Partition, planning_s: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("context (tokens)", "instances", "load", "batch", "TPOT (ms)", "TTFT (s)")
    for stage, forecast in zip(partition.plan.stages, partition.forecasts, strict=True):
        table.add_row(
            f"{stage.lo_tokens:,} – {stage.hi_tokens:,}",
            str(len(stage.instances)),
            f"{forecast.overload:.0%}",
            f"{forecast.batch:.1f}",
            f"{forecast.tpot_s * 1e3:.1f}",
            f"{forecast.ttft_s:.2f}",
        )
    console.print(table)
    if partition.feasible:
        console.print(f"expected mean normalized latency {partition.normalized_latency_s * 1e3:.1f} ms/token")
    else:
        worst = max(forecast.overload for forecast in partition.forecasts)
        console.print(f"infeasible: no plan carries this load; the least overloaded one is {worst:.2f} times too full")
    console.print(f"planned in {planning_s * 1e3:.0f} ms")
