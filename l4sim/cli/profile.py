"""``l4sim profile``: list, show and fit GPU profiles."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from l4sim.calibration.all_reduces import write_all_reduces
from l4sim.calibration.datasheet import roofline_profile
from l4sim.calibration.importers import import_profile
from l4sim.calibration.importers.aiconfigurator import import_aiconfigurator
from l4sim.calibration.importers.aisimulate import SYSTEMS, import_aisimulate
from l4sim.calibration.importers.aisimulate.find import BACKENDS
from l4sim.calibration.importers.importer import Given
from l4sim.calibration.links import held_links
from l4sim.calibration.measured.fit import fit_measured
from l4sim.calibration.measured.folder import is_measured
from l4sim.calibration.penalties.measured import measured_penalties
from l4sim.calibration.penalties.predicted import penalties
from l4sim.calibration.points.all_reduces import read_all_reduces
from l4sim.calibration.profile_json import write_profile, write_tables
from l4sim.cli import ExtensibleGroup
from l4sim.cli.profile_penalty import draw_measured, draw_penalty, print_measured, print_penalty
from l4sim.cli.profile_report import (
    TYPICAL,
    describe_profile,
    draw_profile,
    errors_by_operator,
    print_errors,
    print_report,
    print_table,
    typical_iterations,
)
from l4sim.cost.build import COST_MODELS, build_cost
from l4sim.cost.communication import all_reduce_among
from l4sim.cost.profile import list_profiles, load_profile, profile_folder
from l4sim.errors import InputError
from l4sim.recordings import own
from l4sim.recordings.fit import fit_recording
from l4sim.specs.gpu import load_gpu
from l4sim.specs.link import LINKS
from l4sim.specs.model import load_model

_MAX_BATCHED_TOKENS = 8192
AISIMULATE = "aisimulate"
"""What stands for a path where tables are looked for in a package, by system and backend."""


@click.group(cls=ExtensibleGroup)
def profile() -> None:
    """List, show, fit and measure GPU profiles."""


@profile.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List the bundled profiles, and whether they were measured."""
    profiles = [load_profile(name) for name in list_profiles()]
    if as_json:
        rows = [
            {"name": entry.name, "basis": entry.basis, "kernels": list(entry.kernels), "gpu": asdict(entry.gpu)}
            for entry in profiles
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("profile", "basis", "GiB", "TB/s", "TFLOP/s", "kernel"),
        [
            (
                entry.name,
                entry.basis,
                f"{entry.gpu.memory_bytes / 2**30:.1f}",
                f"{entry.gpu.memory_bytes_per_s / 1e12:.2f}",
                f"{entry.gpu.bf16_flops / 1e12:.0f}",
                entry.default_kernel,
            )
            for entry in profiles
        ],
    )


@profile.command("show")
@click.argument("name")
@click.option("--model", "model_name", default="llama-3.1-8b", show_default=True, help="Name, or a config.json.")
@click.option("--tensor-parallel", default=1, show_default=True, help="GPUs per instance.")
@click.option("--kernel", default=None, help="Attention kernel; the profile's default if not given.")
@click.option("--cost-model", default="tile", show_default=True, help=f"One of {', '.join(COST_MODELS)}.")
@click.option("--penalty", is_flag=True, help="Show instead how much slower unequal lengths make a batch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder for profile.png or penalty.png.")
def show_command(
    name: str,
    model_name: str,
    tensor_parallel: int,
    kernel: str | None,
    cost_model: str,
    penalty: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Show where a profile (a name or a folder) comes from, its errors, and seconds of typical iterations."""
    shown, model = load_profile(name), load_model(model_name)
    if penalty:
        if kernel is not None or cost_model != "tile":
            raise InputError("--penalty shows every kernel's own split: it takes no --kernel or --cost-model")
        cells = penalties(shown, model, tensor_parallel=tensor_parallel)
        folder = profile_folder(name)
        measured = measured_penalties(folder, shown) if is_measured(folder) else []
        if as_json:
            ratios = {"predicted": [asdict(cell) for cell in cells], "measured": [asdict(pair) for pair in measured]}
            click.echo(json.dumps(ratios, indent=2))
        else:
            print_penalty(cells, shown, model)
        if out is not None:
            click.echo(draw_penalty(cells, shown, model, out), err=True)
        if measured and not as_json:
            print_measured(measured, shown)
        if measured and out is not None:
            click.echo(draw_measured(measured, shown, out), err=True)
        return
    all_reduce = all_reduce_among(tensor_parallel, shown.gpu, shown.all_reduce) if tensor_parallel > 1 else None
    cost = build_cost(
        shown,
        model,
        tensor_parallel=tensor_parallel,
        kernel=kernel,
        cost_model=cost_model,
        max_num_batched_tokens=_MAX_BATCHED_TOKENS + max(decodes for decodes, _, _ in TYPICAL),
        all_reduce=all_reduce,
    )
    iterations = typical_iterations(cost, model)
    report = describe_profile(shown, model, tensor_parallel, kernel or shown.default_kernel, cost_model, all_reduce)
    if as_json:
        click.echo(json.dumps(report | {"iterations": iterations}, indent=2))
    else:
        print_report(report, iterations)
    if out is not None:
        click.echo(draw_profile(shown, model, cost, report["kernel_basis"], out), err=True)


@profile.command("fit")
@click.argument("name")
@click.option("--points", type=click.Path(path_type=Path), help="Folder of tables aic_<gpu>_*_<operator>.csv[.gz].")
@click.option("--roofline", is_flag=True, help="From the datasheet alone, nothing measured.")
@click.option("--gpu", help="A recording's GPU, where its own is not bundled: the nearest that is.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for profile.json  [default: NAME/fitted or NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print the errors as JSON.")
def fit_command(
    name: str, points: Path | None, roofline: bool, gpu: str | None, out: Path | None, as_json: bool
) -> None:
    """Fit a profile from measured points or recorded iterations, and print its held-out errors.

    NAME is a folder that `l4sim profile measure` or `l4sim record` wrote, or a bundled GPU.
    """
    if own.recognises(Path(name)):
        if roofline or points is not None:
            raise InputError(f"profile fit: {name} holds a recorded run, neither --points nor --roofline go with it")
        report_fit(fit_recording(Path(name), gpu=gpu), out or Path(name) / "fitted", as_json)
        return
    if gpu is not None:
        raise InputError("profile fit: --gpu is for a folder that l4sim record wrote")
    if is_measured(Path(name)):
        if roofline or points is not None:
            raise InputError(f"profile fit: {name} holds measured points, neither --points nor --roofline go with it")
        report_fit(fit_measured(Path(name)), out or Path(name), as_json)
        return
    if roofline == (points is not None):
        raise InputError("profile fit: give either --points FOLDER or --roofline, or a folder of measured points")
    if out is None:
        raise InputError("profile fit: --out FOLDER is missing")
    named = load_gpu(name)
    fitted = roofline_profile(named) if points is None else import_aiconfigurator(points, named)
    report_fit(fitted, out, as_json)


@profile.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--gpu", "gpu_name", help="The bundled GPU that was measured; of AISimulate's tables the system says it.")
@click.option("--system", help=f"AISimulate: one of {', '.join(SYSTEMS)}.")
@click.option("--backend", help=f"AISimulate: one of {', '.join(BACKENDS)}.")
@click.option("--model", "model_name", help="LLMServingSim: the model that was measured, a name or a config.json.")
@click.option("--tensor-parallel", type=click.IntRange(min=1), help="LLMServingSim: GPUs per instance  [default: 1]")
@click.option(
    "--host-overhead-ms",
    type=click.FloatRange(min=0),
    help="LLMServingSim: per iteration  [default: as fitted to recorded runs]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for profile.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the errors as JSON.")
def import_command(
    path: Path,
    folder: Path | None,
    gpu_name: str | None,
    system: str | None,
    backend: str | None,
    model_name: str | None,
    tensor_parallel: int | None,
    host_overhead_ms: float | None,
    out: Path,
    as_json: bool,
) -> None:
    """Import what others measured: LLMServingSim's folders, aiconfigurator's tables, Vidur's or Frontier's attention.

    PATH is a folder with dense.csv, per_sequence.csv and attention.csv (LLMServingSim); one with gemm_perf,
    generation_attention_perf, context_attention_perf and custom_allreduce_perf as .txt, .csv or .parquet
    (aiconfigurator, Hopper); or one attention CSV with time_stats columns (Vidur, Frontier). Or PATH is the word
    aisimulate, with --system and --backend: the tables are those of its installed package, or in FOLDER.
    """
    if str(path) == AISIMULATE:
        if system is None or backend is None or gpu_name or model_name or tensor_parallel or host_overhead_ms:
            raise InputError("profile import aisimulate: --system, --backend and --out are needed, FOLDER may be given")
        imported = import_aisimulate(folder, system, backend)
        write_tables(imported.tables, out)
        report_fit(imported.profile, out, as_json)
        for name, table in imported.profile["tables"]["operators"].items():
            for reason, rows in table["left_out"].items():
                click.echo(f"{name}: {rows:,} of {table['rows']:,} rows {reason}", err=True)
        return
    if folder is not None or system is not None or backend is not None:
        raise InputError("profile import: FOLDER, --system and --backend go with aisimulate")
    if gpu_name is None:
        raise InputError("profile import: --gpu is missing")
    given = Given(
        None if model_name is None else load_model(model_name),
        tensor_parallel,
        None if host_overhead_ms is None else host_overhead_ms * 1e-3,
    )
    report_fit(import_profile(path, load_gpu(gpu_name), given), out, as_json)


@profile.command("all-reduce")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--gpu", "gpu_name", required=True, help="The bundled GPU that was measured, or whose link it has.")
@click.option("--source", required=True, help="Where the tables come from.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
def all_reduce_command(paths: tuple[Path, ...], gpu_name: str, source: str, out: Path) -> None:
    """Thin tables custom_allreduce_perf (aiconfigurator, AISimulate) to curves, as they are bundled by GPU."""
    gpu = load_gpu(gpu_name)
    tables = [table for path in paths for table in read_all_reduces(path, gpu)]
    write_all_reduces(tables, source, out)
    print_errors({table.name: table.errors for table in tables})
    click.echo(out, err=True)


@profile.command("links")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def links_command(as_json: bool) -> None:
    """List links by name, and how far all-reduces from their latency and bandwidth are from measured ones."""
    held = held_links()
    if as_json:
        errors = [
            {"link": one.link, "device": one.table.device, "all_reduce": one.table.name, "fitted": one.fitted}
            | one.errors.to_json()
            for one in held
        ]
        click.echo(json.dumps({"links": [asdict(link) for link in LINKS.values()], "errors": errors}, indent=2))
        return
    print_table(
        ("link", "GB/s", "us", "source"),
        [
            (link.name, f"{link.bytes_per_s / 1e9:g}", f"{link.latency_s * 1e6:.3g}", link.source)
            for link in LINKS.values()
        ],
    )
    click.echo("\nErrors of all-reduces from a link's latency and bandwidth, %")
    print_table(
        ("link", "mape", "worst", "fitted", "against"),
        [
            (
                one.link,
                f"{one.errors.mape_pct:.3g}",
                f"{one.errors.worst_pct:.3g}",
                "yes" if one.fitted else "no",
                f"{one.table.device}, {one.table.name}",
            )
            for one in held
        ],
    )


def report_fit(fitted: dict[str, Any], out: Path, as_json: bool) -> None:
    """Write a profile into a folder, read it back, and print its errors."""
    path = write_profile(fitted, out)
    errors = errors_by_operator(load_profile(str(out)))
    if as_json:
        click.echo(json.dumps(errors, indent=2))
    else:
        print_errors(errors)
    click.echo(path, err=True)
