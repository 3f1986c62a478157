"""`l4sim validate lockstep` and `realtime`: the same policies on live instances. Imports PyTorch only when they run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from l4sim.cli.run_options import load_from_options, run_options, setup_from_options

if TYPE_CHECKING:
    from l4sim.experiment import Setup
    from l4sim.results.run import Run
    from validate_gpu.comparison import Figure

Command = TypeVar("Command", bound=Callable[..., Any])

_LIVE_OPTIONS = [
    click.option("--policies", default="round-robin,l4", show_default=True, metavar="A,B,…"),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--attention",
        default="auto",
        show_default=True,
        help="torch, or a path of FlashInfer: tensor-cores, cuda-cores, batch-attention.",
    ),
    click.option("--cuda-graphs/--no-cuda-graphs", default=True, show_default=True, help="Capture decode steps."),
    click.option("--out", type=click.Path(path_type=Path), help="Folder for the tables of both."),
]


def _live_options(command: Command) -> Command:
    for option in reversed(_LIVE_OPTIONS):
        command = option(command)
    return run_options(command)


@click.command()
@_live_options
def lockstep(policies: str, **values: Any) -> None:
    """All instances in turn on one device, each moving its own virtual clock by its measured iterations.

    Needs no more than one GPU; without one, --model tiny runs on the CPU. Live instances skip no iterations and have
    no prefix cache (--no-prefix-caching). The prediction is the simulator's with the profile's cost model.
    """
    _need_torch()
    from validate_gpu.lockstep import lockstep as run

    names = _policies(policies)
    trace, setup = load_from_options(values), setup_from_options(values)
    live = _or_fail(lambda: run(trace, names, setup, _options(values)))
    _report(names, trace, setup, live.runs, live.device, values, {"seconds": live.seconds})


@click.command()
@click.option("--share-devices", is_flag=True, help="More instances than devices: they slow one another.")
@_live_options
def realtime(policies: str, share_devices: bool, **values: Any) -> None:
    """One process per GPU, or per group of CPU cores, by the wall's clock, with messages over sockets.

    Refuses more instances than devices, unless they are to share them. Live instances skip no iterations and have no
    prefix cache (--no-prefix-caching). The prediction is the simulator's with the profile's cost model.
    """
    _need_torch()
    from validate_gpu.realtime.driver import realtime as run

    names = _policies(policies)
    trace, setup = load_from_options(values), setup_from_options(values)
    live = _or_fail(lambda: run(trace, names, setup, _options(values), share_devices=share_devices))
    _report(names, trace, setup, live.runs, live.device, values, {})


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise click.ClickException("PyTorch is not installed, which live instances need: pip install 'l4sim[live]'")


def _policies(text: str) -> list[str]:
    from l4sim.errors import InputError
    from l4sim.policies.registry import check_policy

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError("--policies names no policy")
    for name in names:
        check_policy(name)
    return names


def _options(values: dict[str, Any]) -> Any:
    from validate_gpu.live.build import LiveOptions

    return LiveOptions(values["device"], values["attention"], values["cuda_graphs"], values["seed"])


def _or_fail(run: Callable[[], Any]) -> Any:
    """A run's result; one line and exit code 1 where the device fails before anything could be measured."""
    from l4sim.simulator.executor import ExecutionError

    try:
        return run()
    except ExecutionError as error:
        click.echo(f"l4sim: {error}", err=True)
        sys.exit(1)


def _report(
    names: Sequence[str],
    trace: Any,
    setup: Setup,
    live: Sequence[Run],
    device: dict[str, Any],
    values: dict[str, Any],
    record: dict[str, Any],
) -> None:
    from l4sim.experiment import compare
    from l4sim.results.metrics import summarise
    from l4sim.results.write import dump_json, write_run
    from validate_gpu.comparison import compare_figures

    simulated = compare(trace, names, setup)
    measured = [summarise(run) for run in live]
    predicted = [summarise(run) for run in simulated]
    figures = {name: compare_figures(one, other) for name, one, other in zip(names, measured, predicted, strict=True)}
    told = {name: [figure._asdict() for figure in rows] for name, rows in figures.items()}
    config = {**setup.describe(), "policies": list(names), "trace": trace.name, "live": device}
    if values["out"] is not None:
        write_run(values["out"] / "live", config, live, {"policies": measured})
        write_run(values["out"] / "simulated", config, simulated, {"policies": predicted})
        (values["out"] / "validation.json").write_text(dump_json({"config": config, "figures": told, **record}))
        click.echo(f"{values['out']}: live, simulated, validation.json", err=True)
    for run in live:
        failed = run.requests["status"] == "failed"
        if failed.any():
            click.echo(
                f"{run.policy}: {failed.sum()} requests failed: {run.requests['reason'][failed].iloc[0]}", err=True
            )
    if device["device"] == "cpu":
        click.echo("the profile is a GPU's: on a CPU the errors compare devices, not the simulator", err=True)
    if values["as_json"]:
        click.echo(dump_json({"config": config, "figures": told}), nl=False)
    else:
        _print(figures, setup, device)


def _print(figures: dict[str, list[Figure]], setup: Setup, device: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"{setup.options.instances} instances of {setup.model.name} on {device['name']} ({device['device']}); "
        f"predicted from profile {setup.profile.name} ({setup.profile.basis})"
    )
    table = Table("policy", "figure", "measured", "predicted", "error %")
    for name, rows in figures.items():
        for figure in rows:
            numbers = (f"{figure.measured:.4g}", f"{figure.predicted:.4g}", f"{figure.error_pct:+.1f}")
            table.add_row(name, figure.metric, *numbers)
    console.print(table)
