"""``l4sim profile``: list, show and fit GPU profiles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from l4sim.cli import ExtensibleGroup
from l4sim.cost.batch import Batch, Prefill
from l4sim.cost.build import COST_MODELS, build_cost
from l4sim.cost.measured import is_measured
from l4sim.cost.measured_fit import fit_measured
from l4sim.cost.model import CostModel
from l4sim.cost.penalty import BATCHES, MEAN_TOKENS, Penalty, penalties
from l4sim.cost.profile import Profile, list_profiles, load_profile
from l4sim.cost.profile_fit import fit_profile, roofline_profile, write_profile
from l4sim.cost.profile_import import HOST_OVERHEAD_S, import_profile
from l4sim.errors import InputError
from l4sim.specs.gpu import load_gpu
from l4sim.specs.model import Model, load_model

# Batches as (decoding requests, their context tokens, prefill tokens), from idle to full.
_TYPICAL = (
    (1, 1024, 0),
    (8, 8192, 0),
    (32, 2048, 0),
    (64, 2048, 0),
    (64, 16384, 0),
    (128, 1024, 0),
    (256, 1024, 0),
    (0, 0, 512),
    (0, 0, 2048),
    (0, 0, 8192),
    (64, 2048, 512),
    (64, 2048, 2048),
)
_MAX_BATCHED_TOKENS = 8192


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
    _print_table(
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
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder for profile.png.")
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
        if out is not None or kernel is not None or cost_model != "tile":
            raise InputError("--penalty shows every kernel's own split: it takes no --kernel, --cost-model or --out")
        _show_penalty(penalties(shown, model, tensor_parallel=tensor_parallel), shown, model, as_json)
        return
    cost = build_cost(
        shown,
        model,
        tensor_parallel=tensor_parallel,
        kernel=kernel,
        cost_model=cost_model,
        max_num_batched_tokens=_MAX_BATCHED_TOKENS + max(decodes for decodes, _, _ in _TYPICAL),
    )
    iterations = [
        {
            "decode_requests": decodes,
            "context_tokens": context,
            "prefill_tokens": prefill,
            "seconds": cost.iteration_s(_batch(decodes, context, prefill)),
        }
        for decodes, context, prefill in _TYPICAL
        if max(context, prefill) <= model.max_model_len
    ]
    report = _report(shown, model, tensor_parallel, kernel or shown.default_kernel, cost_model)
    if as_json:
        click.echo(json.dumps(report | {"iterations": iterations}, indent=2))
    else:
        _print_report(report, iterations)
    if out is not None:
        click.echo(_draw(shown, model, cost, out), err=True)


def _show_penalty(cells: Sequence[Penalty], shown: Profile, model: Model, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(cell) for cell in cells], indent=2))
        return
    click.echo(
        f"Attention of {model.name} on {shown.name}: a decode batch's time over that of as many requests of equal\n"
        f"lengths with the same tokens in all, {MEAN_TOKENS:,} each on average; by requests in the batch\n"
    )
    ratios: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        ratios.setdefault((cell.kernel, cell.skew), []).append(f"{cell.ratio:.2f}")
    _print_table(("kernel", "lengths", *map(str, BATCHES)), [(*names, *row) for names, row in ratios.items()])
    for kernel, basis in {cell.kernel: cell.basis for cell in cells}.items():
        click.echo(f"{kernel}: {basis}")


@profile.command("fit")
@click.argument("name")
@click.option("--points", type=click.Path(path_type=Path), help="Folder of tables aic_<gpu>_*_<operator>.csv[.gz].")
@click.option("--roofline", is_flag=True, help="From the datasheet alone, nothing measured.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for profile.json; a measured folder's own.")
@click.option("--json", "as_json", is_flag=True, help="Print the errors as JSON.")
def fit_command(name: str, points: Path | None, roofline: bool, out: Path | None, as_json: bool) -> None:
    """Fit a profile from measured points, and print its held-out errors.

    NAME is a folder that `l4sim profile measure` wrote, or a bundled GPU.
    """
    if is_measured(Path(name)):
        if roofline or points is not None:
            raise InputError(f"profile fit: {name} holds measured points, neither --points nor --roofline go with it")
        report_fit(fit_measured(Path(name)), out or Path(name), as_json)
        return
    if roofline == (points is not None):
        raise InputError("profile fit: give either --points FOLDER or --roofline, or a folder of measured points")
    if out is None:
        raise InputError("profile fit: --out FOLDER is missing")
    gpu = load_gpu(name)
    fitted = roofline_profile(gpu) if points is None else fit_profile(gpu, points)
    report_fit(fitted, out, as_json)


@profile.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--gpu", "gpu_name", required=True, help="The bundled GPU that the folder was measured on.")
@click.option("--model", "model_name", required=True, help="The model that was measured: a name, or a config.json.")
@click.option("--tensor-parallel", default=1, show_default=True, help="GPUs per instance in the measured run.")
@click.option(
    "--host-overhead-ms",
    default=HOST_OVERHEAD_S * 1e3,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Per iteration.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for profile.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the errors as JSON.")
def import_command(
    folder: Path,
    gpu_name: str,
    model_name: str,
    tensor_parallel: int,
    host_overhead_ms: float,
    out: Path,
    as_json: bool,
) -> None:
    """Import a profile folder of LLMServingSim (dense.csv, per_sequence.csv, attention.csv) measured in vLLM."""
    imported = import_profile(
        folder,
        load_gpu(gpu_name),
        load_model(model_name),
        tensor_parallel=tensor_parallel,
        host_overhead_s=host_overhead_ms * 1e-3,
    )
    report_fit(imported, out, as_json)


def report_fit(fitted: dict[str, Any], out: Path, as_json: bool) -> None:
    """Write a profile into a folder, read it back, and print its errors."""
    path = write_profile(fitted, out)
    errors = _errors(load_profile(str(out)))
    if as_json:
        click.echo(json.dumps(errors, indent=2))
    else:
        _print_errors(errors)
    click.echo(path, err=True)


def _batch(decodes: int, context: int, prefill: int) -> Batch:
    chunks = (Prefill(prefill, 0),) if prefill else ()
    return Batch(np.full(decodes, context, dtype=np.int64), decodes * context, chunks)


def _report(shown: Profile, model: Model, tensor_parallel: int, kernel: str, cost_model: str) -> dict[str, Any]:
    return {
        "name": shown.name,
        "basis": shown.basis,
        "gpu": asdict(shown.gpu),
        "provenance": asdict(shown.provenance),
        "sources": {
            **shown.sources,
            **{f"attention, {name}": fit.source for name, fit in shown.kernels.items()},
        },
        "errors": _errors(shown),
        "host_overhead_s": shown.host_overhead_s,
        "content_hash": shown.content_hash,
        "model": model.name,
        "tensor_parallel": tensor_parallel,
        "kernel": kernel,
        "kernel_basis": shown.kernel_basis(kernel),
        "cost_model": cost_model,
    }


def _errors(shown: Profile) -> dict[str, Any]:
    """Held-out errors by operator; operators without measurements are left out."""
    attention = {
        f"attention, {kernel}, {kind}": errors
        for kernel, fit in shown.kernels.items()
        for kind, errors in fit.errors.items()
    }
    return {name: errors for name, errors in {**shown.errors, **attention}.items() if errors}


def _print_report(report: dict[str, Any], iterations: list[dict[str, Any]]) -> None:
    click.echo(f"{report['name']} ({report['basis']})")
    for field, value in report["provenance"].items():
        click.echo(f"  {field}: {'not known' if value is None else value}")
    for operator, source in report["sources"].items():
        click.echo(f"  {operator}: {source}")
    click.echo(f"  content hash: {report['content_hash']}")
    _print_errors(report["errors"])
    click.echo(
        f"\n{report['model']}, tensor parallel {report['tensor_parallel']}, kernel {report['kernel']}, "
        f"cost model {report['cost_model']}: seconds of an iteration ({report['kernel_basis']})"
    )
    _print_table(
        ("decoding requests", "context tokens each", "prefill tokens", "ms"),
        [
            (
                str(row["decode_requests"]),
                str(row["context_tokens"]),
                str(row["prefill_tokens"]),
                f"{row['seconds'] * 1e3:.2f}",
            )
            for row in iterations
        ],
    )


def _print_errors(errors: dict[str, Any]) -> None:
    if not errors:
        click.echo("\nNothing measured, no errors to report.")
        return
    click.echo("\nErrors on held-out points, %")
    for columns in dict.fromkeys(tuple(row) for row in errors.values()):
        rows = [
            (name, *(f"{value:g}" for value in row.values())) for name, row in errors.items() if tuple(row) == columns
        ]
        _print_table(("operator", *(column.removesuffix("_pct") for column in columns)), rows)


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for title in header[:-1]:
        table.add_column(title, no_wrap=True)
    table.add_column(header[-1])
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _draw(shown: Profile, model: Model, cost: CostModel, out: Path) -> Path:
    """Milliseconds of a decode iteration over its requests, one line per context length."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from l4sim.results.plots.style import RC, log_scale, save

    requests = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(7, 4.5))
        axes = figure.subplots()
        for context in (256, 1024, 4096, 16384, 65536):
            if context <= model.max_model_len:
                milliseconds = [cost.iteration_s(_batch(count, context, 0)) * 1e3 for count in requests]
                axes.plot(requests, milliseconds, marker="o", label=f"{context:,}")
        log_scale(axes, "x")
        log_scale(axes, "y")
        axes.set(xlabel="decoding requests", ylabel="iteration, ms")
        axes.set_title(f"{model.name} on {shown.name} ({shown.basis})")
        axes.legend(title="context tokens each")
        return save(figure, out / "profile.png")
