"""`l4sim plan`."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l4sim.cli.grouped import GroupedCommand, grouped
from l4sim.cli.run_options import load_from_options, run_options, setup_from_options
from l4sim.specs.option import described
from l4sim.specs.options import EVENTS, MIGRATION, OUTPUT, PLAN, TraceOptions

if TYPE_CHECKING:
    from l4sim.experiment import Setup
    from l4sim.policies.l4.closed_loop import LoopRate
    from l4sim.policies.l4.demand import Demand
    from l4sim.policies.l4.partition import Partition

_FROM_TRACE = {"trace": "TRACE"} | {
    option.name: option.flag for option in described(TraceOptions) if option.default is None
}


@click.command(cls=GroupedCommand)
@run_options(without=(EVENTS, MIGRATION))
@grouped(PLAN, "--objective", default="normalized-latency", show_default=True, help="Or e2e, or slo (with limits).")
@grouped(PLAN, "--ttft-slo", type=float, metavar="S", help="Limit on TTFT, for --objective slo.")
@grouped(PLAN, "--tpot-slo", type=float, metavar="S", help="Limit on TPOT, for --objective slo.")
@grouped(PLAN, "--stages", type=click.IntRange(min=1), metavar="N", help="Exactly so many stages  [default: the best]")
@grouped(OUTPUT, "--out", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the plan over the lengths.")
def plan(
    as_json: bool,
    objective: str,
    ttft_slo: float | None,
    tpot_slo: float | None,
    stages: int | None,
    out: Path | None,
    **values: Any,
) -> None:
    """Partition instances into length ranges for TRACE.

    Without a TRACE or a --plan-histogram, a bundled long-context example.
    """
    from l4sim.experiment import plan_runner_ups, timed_plan
    from l4sim.policies.l4.objective import Objective

    wanted = Objective(objective, ttft_slo, tpot_slo)
    demand, setup, loop = _demand_and_setup(values)
    made, planning_s = timed_plan(demand, setup, objective=wanted, stages=stages)
    others = plan_runner_ups(demand, setup, made)
    if out is not None:
        from l4sim.results.plots.partition import draw_partition

        draw_partition(made, demand, out)
        click.echo(str(out), err=True)
    if as_json:
        from l4sim.results.write import dump_json

        runners = {"runner_ups": [_as_dict(other) for other in others]}
        looped = {} if loop is None else {"closed_loop": asdict(loop)}
        click.echo(dump_json(_as_dict(made) | {"planning_s": planning_s} | runners | looped), nl=False)
    else:
        if loop is not None:
            click.echo(loop.in_words())
        _print(made, planning_s, others)


def _demand_and_setup(values: dict[str, Any]) -> tuple[Demand, Setup, LoopRate | None]:
    from l4sim.errors import InputError
    from l4sim.experiment import histogram_demand, planned_loop, sample_demand

    if values["plan_histogram"] is None:
        trace = load_from_options(values)
        setup = setup_from_options(values)
        return sample_demand(trace, setup), setup, planned_loop(trace, setup)
    for name, given in _FROM_TRACE.items():
        if values[name] is not None:
            raise InputError(f"{given} and --plan-histogram exclude one another: the histogram is all a plan needs")
    setup = setup_from_options(values)
    return histogram_demand(values["plan_histogram"], setup), setup, None


def _as_dict(made: Partition) -> dict[str, Any]:
    stages = [
        {
            "lo_tokens": stage.lo_tokens,
            "hi_tokens": stage.hi_tokens,
            "instances": list(stage.instances),
            "load": _finite(forecast.load),
            "prompts_per_s": forecast.prompts_per_s,
            "decode_tokens_per_s": forecast.tokens_per_s,
            "batch": forecast.batch,
            "tpot_s": forecast.tpot_s,
            "ttft_s": _finite(forecast.ttft_s),
            "objective_share": _finite(forecast.cost),
        }
        for stage, forecast in zip(made.plan.stages, made.forecasts, strict=True)
    ]
    return {
        "stages": stages,
        "objective": made.objective.name,
        "objective_value": _finite(made.value),
        "feasible": made.feasible,
        "load": _finite(made.load),
        "least_load": made.least_load,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _print(made: Partition, planning_s: float, others: tuple[Partition, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("context (tokens)", "instances", "load", "batch", "TPOT (ms)", "TTFT (s)")
    for stage, forecast in zip(made.plan.stages, made.forecasts, strict=True):
        table.add_row(
            f"{stage.lo_tokens:,} – {stage.hi_tokens:,}",
            str(len(stage.instances)),
            f"{forecast.load:.0%}",
            f"{forecast.batch:.1f}",
            f"{forecast.tpot_s * 1e3:.1f}",
            "–" if math.isnan(forecast.ttft_s) else f"{forecast.ttft_s:.2f}",
        )
    console.print(table)
    if made.feasible:
        console.print(f"expected {_describe(made)}")
    else:
        console.print(
            f"infeasible: no such plan carries this load; the least overloaded one gets {made.least_load:.2f} times "
            f"what its fullest stage carries, the one shown {made.load:.2f} times",
            soft_wrap=True,
        )
    for other in others:
        lengths = ", ".join(f"to {stage.hi_tokens:,} on {len(stage.instances)}" for stage in other.plan.stages)
        expected = _describe(other) if other.feasible else f"{other.load:.2f} times overloaded"
        console.print(f"runner-up: {lengths}: {expected}", soft_wrap=True)
    console.print(f"planned in {planning_s * 1e3:.0f} ms")


def _describe(made: Partition) -> str:
    if made.objective.name == "normalized-latency":
        return f"mean normalized latency {made.value * 1e3:.2f} ms/token"
    if made.objective.name == "e2e":
        return f"mean end-to-end latency {made.value:.2f} s"
    return f"SLO attainment {max(1 - made.value, 0):.1%}"
