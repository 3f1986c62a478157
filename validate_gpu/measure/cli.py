"""``l4sim profile measure`` and ``l4sim profile check``: parsing and printing. PyTorch is imported when they run."""

from __future__ import annotations

import importlib.util
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from l4sim.errors import InputError

if TYPE_CHECKING:
    from validate_gpu.measure.campaign import Outcome
    from validate_gpu.measure.points import Point

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
# Of a small budget, what fitting takes at most.
_FIT_SHARE = 0.25

_device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
_model_option = click.option("--model", "model_name", help="Name, or a config.json; llama-3.1-8b, on a CPU tiny.")
_gpu_option = click.option("--gpu", "gpu_name", help="The bundled datasheet of the device, if not told by its name.")


@click.command()
@_device_option
@_model_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The profile's folder; goes on if it exists."
)
@click.option("--budget", default="8m", show_default=True, help="Time for everything, fit included: 90s, 8m.")
@_gpu_option
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of a CPU.")
@click.option("--seed", default=0, show_default=True, help="Of the random data.")
@click.option("--fit/--no-fit", default=True, show_default=True, help="Or only measure; l4sim profile fit fits OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the errors as JSON.")
def measure(
    device: str,
    model_name: str | None,
    out: Path,
    budget: str,
    gpu_name: str | None,
    threads: int,
    seed: int,
    fit: bool,
    as_json: bool,
) -> int:
    """Measure a device and fit a profile to it.

    Points are measured in the order of what they tell per second until the budget is spent, and kept one by one: the
    same command goes on where it was interrupted, or adds another model's points to the folder. Points that fail are
    listed in failures.csv and not tried again unless it is deleted.
    """
    start_s = time.monotonic()
    budget_s = parse_budget(budget)
    _need_torch()
    import torch

    from l4sim.calibration.measured.fit import fit_measured
    from l4sim.calibration.measured.folder import Measured
    from l4sim.cli.profile import report_fit
    from l4sim.specs.model import load_model
    from validate_gpu.live.device import open_device
    from validate_gpu.live.graphs import captured_on
    from validate_gpu.measure.campaign import measure_points
    from validate_gpu.measure.describe import Clock, describe_gpu, provenance
    from validate_gpu.measure.estimate import measure_s
    from validate_gpu.measure.plan import plan
    from validate_gpu.measure.progress import progress_bar
    from validate_gpu.measure.setup import scale_of, set_up, target_of
    from validate_gpu.measure.speed import reference_speed, slowness_of
    from validate_gpu.measure.store import Store

    opened = open_device(device)
    if opened.type == "cpu":
        torch.set_num_threads(threads)
    scale = scale_of(opened)
    model = load_model(model_name or scale.model)
    gpu = describe_gpu(opened, gpu_name)
    target, left_out = target_of(opened, model, scale)
    served = target.decode_kernels[0][0]
    today = datetime.now(UTC).date().isoformat()
    reference_s = reference_speed(opened, out)
    bench = set_up(opened, model, scale, seed, slowness_of(opened, reference_s))
    described = Measured(out.resolve().name, gpu, provenance(opened, today), served, captured_on(opened), reference_s)
    store = Store(out, described)
    for reason in left_out:
        click.echo(f"left out: {reason}", err=True)

    def estimate_s(point: Point) -> float:
        return measure_s(point, scale.speed, scale.dtype.itemsize)

    points = plan(target, scale.grid, estimate_s)
    fit_s = min(scale.fit_s, _FIT_SHARE * budget_s) if fit else 0.0
    with Clock(opened) as clock, progress_bar(budget_s - fit_s) as progress:
        outcome = measure_points(
            points,
            bench,
            store,
            estimate_s=estimate_s,
            budget_s=budget_s - fit_s - (time.monotonic() - start_s),
            now=time.monotonic,
            clock_mhz=lambda: clock.mhz,
            progress=progress,
        )
    _print_outcome(outcome, out)
    if fit:
        report_fit(fit_measured(out), out, as_json)
    click.echo(f"{time.monotonic() - start_s:.0f} s in all", err=True)
    return 1 if outcome.failures else 0


@click.command()
@_device_option
@_model_option
@_gpu_option
def check(device: str, model_name: str | None, gpu_name: str | None) -> int:
    """Check that everything is there to measure a device: libraries, kernels, right results, bandwidth.

    Exits with 1 if anything is not as it should be.
    """
    _need_torch()
    from l4sim.specs.model import load_model
    from validate_gpu.live.device import open_device
    from validate_gpu.measure.check import check_ground
    from validate_gpu.measure.describe import describe_gpu
    from validate_gpu.measure.setup import scale_of, set_up, target_of

    opened = open_device(device)
    scale = scale_of(opened)
    model = load_model(model_name or scale.model)
    gpu = describe_gpu(opened, gpu_name)
    target, _ = target_of(opened, model, scale)
    right = True
    for finding in check_ground(opened, target, lambda: set_up(opened, model, scale, seed=0), gpu.memory_bytes_per_s):
        click.echo(f"{'ok  ' if finding.right else 'FAIL'} {finding.what}: {finding.found}")
        right = right and finding.right
    return 0 if right else 1


def parse_budget(text: str) -> float:
    """Seconds of ``480``, ``90s``, ``8m`` or ``1h``.

    Raises:
        InputError: anything else, or no time at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None or float(found[1]) == 0:
        raise InputError(f"--budget is {text!r}, accepted is a time above 0 such as 90s, 8m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "PyTorch is not installed, which measuring needs: pip install 'l4sim[live]', on a GPU l4sim[gpu]"
        )


def _print_outcome(outcome: Outcome, out: Path) -> None:
    from validate_gpu.measure.points import describe

    click.echo(
        f"{outcome.measured} points measured, {outcome.there_before} there before, {outcome.not_reached} not reached",
        err=True,
    )
    for failure in outcome.failures:
        click.echo(f"FAILED {describe(failure.point)}: {failure.reason}", err=True)
    if outcome.failures:
        click.echo(f"failed points are listed in {out / 'failures.csv'}; all others are kept", err=True)
