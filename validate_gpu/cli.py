"""`l4sim validate TRACE`, on live instances, and `validate recorded`. PyTorch is imported only when they run."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from l4sim.cli.grouped import GroupedCommand, grouped
from l4sim.cli.run_options import load_from_options, run_options, setup_from_options
from l4sim.cli.validate import percent
from l4sim.policies.defaults import COMPARED
from l4sim.specs.options import EVENTS, FLEET, MIGRATION, OUTPUT, POLICIES

if TYPE_CHECKING:
    from l4sim.experiment import Setup
    from l4sim.workload.trace import Trace
    from validate_gpu.comparison.compare import Comparison
    from validate_gpu.live.build import LiveOptions
    from validate_gpu.live_run import LiveResult, LiveRun


_LIVE = "Live instances"


@click.command(cls=GroupedCommand)
# Live instances are equal, and the simulator's rules of messages and migrations are not theirs.
@run_options(without=(EVENTS, FLEET, MIGRATION))
@grouped(POLICIES, "--policies", default=",".join(COMPARED), show_default=True, metavar="A,B,…", help="To run.")
@grouped(_LIVE, "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@grouped(_LIVE, "--driver", type=click.Choice(["lockstep", "realtime"]), default="lockstep", show_default=True)
@grouped(_LIVE, "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Live runs of every policy.")
@grouped(OUTPUT, "--tolerance", callback=percent, default="5%", show_default=True, help="Largest error of mean E2E.")
@grouped(_LIVE, "--threads", type=click.IntRange(1), default=1, show_default=True, help="Of a CPU, per process.")
@grouped(
    _LIVE,
    "--attention",
    default="auto",
    show_default=True,
    help="torch, or a path of FlashInfer: tensor-cores, cuda-cores, batch-attention.",
)
@grouped(_LIVE, "--cuda-graphs/--no-cuda-graphs", default=True, show_default=True, help="Capture steps (on a GPU).")
@grouped(_LIVE, "--share-devices", is_flag=True, help="Realtime: more instances than devices, which slow one another.")
@grouped(
    OUTPUT, "--compare/--no-compare", default=True, show_default=True, help="Or only run: validate recorded compares."
)
@grouped(OUTPUT, "--out", type=click.Path(path_type=Path), help="Folder for report.md, pictures and tables.")
@click.pass_context
def live(context: click.Context, /, policies: str, **values: Any) -> None:
    """Replay TRACE on live instances and in the simulator, and compare.

    Lockstep runs all instances in turn on one device, each moving its own virtual clock by its measured iterations;
    realtime runs one process per GPU, or per group of CPU cores, by the wall's clock. Without a GPU, --device cpu
    --model tiny. --profile must be of the very device: see l4sim profile measure. The kernel predicted is the one that
    runs, unless --kernel names another. There is no prefix cache on either side. Without --kv-blocks, lockstep
    instances share those that fit the device.

    Exits with 1 if the error of any policy's mean E2E latency is beyond the tolerance, or requests failed; the report
    is written all the same.
    """
    _need_torch()
    from l4sim.cost.profile import load_profile
    from l4sim.errors import InputError
    from l4sim.experiment import compare
    from validate_gpu.comparison.compare import compare_sides
    from validate_gpu.live.build import LiveOptions
    from validate_gpu.lockstep import shared_memory
    from validate_gpu.profile_match import served_kernel

    if values["share_devices"] and values["driver"] != "realtime":
        raise InputError("--share-devices is for --driver realtime: lockstep instances take turns on one device")
    if values["out"] is None and not values["compare"]:
        raise InputError("--no-compare without --out: there would be nothing left of the run")
    names = _policies(policies)
    if context.get_parameter_source("prefix_caching") is ParameterSource.DEFAULT:
        values["prefix_caching"] = False
    options = LiveOptions(
        values["device"], values["attention"], values["cuda_graphs"], values["seed"], threads=values["threads"]
    )
    if values["kernel"] is None:
        values["kernel"] = served_kernel(load_profile(values["profile"]), options)
    trace, setup = load_from_options(values), setup_from_options(values)
    if values["kv_blocks"] is None and values["driver"] == "lockstep":
        setup = shared_memory(setup)
    keep = _keep(values["out"], trace, setup, names, options, values["driver"])
    measured = _or_fail(lambda: _measure(trace, names, setup, options, values, keep))
    if not values["compare"]:
        sys.exit(1 if any(run.failed for runs in measured.runs.values() for run in runs) else 0)
    predicted = dict(zip(names, compare(trace, names, setup), strict=True))
    comparison = compare_sides(trace, setup, measured, predicted, driver=values["driver"])
    _conclude(comparison, values["out"], values["tolerance"], as_json=values["as_json"])


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--profile", help="What predicts: a bundled name or a folder  [default: the recorded run's own]")
@click.option("--kernel", help="Attention kernel  [default: the one that ran]")
@click.option("--cost-model", help="How attention sees a batch  [default: the recorded run's own]")
@click.option("--tolerance", callback=percent, default="5%", show_default=True, help="Largest error of mean E2E.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.md, pictures and tables.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout.")
def recorded(
    folder: Path,
    profile: str | None,
    kernel: str | None,
    cost_model: str | None,
    tolerance: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare live runs that are over once more: FOLDER is what validate TRACE --out left, or its folder live.

    No device is needed, only PyTorch. Policies are planned as they were for the live runs; the profile predicts.
    """
    _need_torch()
    from dataclasses import replace

    from l4sim.experiment import resolve
    from validate_gpu.comparison.compare_recording import compare_recording
    from validate_gpu.recording.files import LIVE
    from validate_gpu.recording.read import read_recording

    recording = read_recording(folder if (folder / LIVE).is_file() else folder / "live")
    given = {"profile": profile, "kernel": kernel, "cost_model": cost_model}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    setup = resolve(replace(recording.deployed.options, **changes, fast_forward=True))
    _conclude(compare_recording(recording, setup), out, tolerance, as_json=as_json)


def _conclude(comparison: Comparison, out: Path | None, tolerance_pct: float, *, as_json: bool) -> None:
    """Write and print a comparison; exit with 1 if it is beyond the tolerance."""
    from validate_gpu.comparison.write import write_comparison

    if out is not None:
        command = shlex.join(["l4sim", *sys.argv[1:]])
        date = datetime.now(UTC).date().isoformat()
        path = write_comparison(comparison, out, tolerance_pct=tolerance_pct, command=command, date=date)
        click.echo(path, err=True)
    if as_json:
        from l4sim.results.write import dump_json

        click.echo(dump_json(comparison.to_json()), nl=False)
    else:
        _print(comparison, tolerance_pct)
    if comparison.beyond(tolerance_pct):
        sys.exit(1)


def _keep(
    out: Path | None, trace: Trace, setup: Setup, names: list[str], options: LiveOptions, driver: str
) -> Callable[[LiveRun], None]:
    """What is done with every live run as it ends: a line about it, and its files if there is a folder for them."""
    if out is None:
        return _print_run
    from validate_gpu.live.build import describe_device
    from validate_gpu.live.device import open_device
    from validate_gpu.recording.write import Recorder

    device = open_device(options.device)
    recorder = Recorder(out / "live", trace, setup, names, driver=driver, describe=lambda: describe_device(device))

    def keep(done: LiveRun) -> None:
        recorder.add(done)
        _print_run(done)

    return keep


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


def _measure(
    trace: Trace,
    names: list[str],
    setup: Setup,
    options: LiveOptions,
    values: dict[str, Any],
    on_run: Callable[[LiveRun], None],
) -> LiveResult:
    if values["driver"] == "realtime":
        from validate_gpu.realtime.driver import realtime

        return realtime(
            trace,
            names,
            setup,
            options,
            share_devices=values["share_devices"],
            repeats=values["repeats"],
            on_run=on_run,
        )
    from validate_gpu.lockstep import lockstep

    return lockstep(trace, names, setup, options, repeats=values["repeats"], on_run=on_run)


def _print_run(done: LiveRun) -> None:
    seconds = sum(iteration.seconds for iteration in done.iterations)
    requests = done.run.requests
    finished = int((requests["status"] == "finished").sum())
    outcome = f"{finished:,} of {len(requests):,} requests finished, {seconds:.1f} s of iterations"
    click.echo(f"{done.run.policy}: {outcome}", err=True)


def _or_fail(run: Callable[[], LiveResult]) -> LiveResult:
    """A run's result; one line and exit code 1 where the device fails before anything could be measured."""
    from l4sim.runtime.executor import ExecutionError

    try:
        return run()
    except ExecutionError as error:
        click.echo(f"l4sim: {error}", err=True)
        sys.exit(1)


def _print(comparison: Comparison, tolerance_pct: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from l4sim.results.numbers import precise
    from validate_gpu.comparison.report import summary

    table = Table("policy", "figure", "measured, ms", "predicted, ms", "error, %", "noise, %")
    for policy, figures in comparison.figures.items():
        for figure in figures:
            numbers = (precise(1e3 * figure.mean), precise(1e3 * figure.predicted))
            errors = (f"{figure.error_pct:+.1f}", f"{figure.noise_pct:.1f}")
            table.add_row(policy, f"{figure.metric.removesuffix('_s')} {figure.statistic}", *numbers, *errors)
    console = Console(highlight=False)
    console.print(table)
    for line in filter(None, summary(comparison, tolerance_pct)):
        console.print(line, markup=False, soft_wrap=True)
