"""What ``l4sim profile`` prints and draws."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from l4sim.batch import Batch, Prefill
from l4sim.cost.basis import basis_of
from l4sim.cost.communication import AllReduce
from l4sim.cost.model import CostModel
from l4sim.cost.profile import Profile
from l4sim.specs.model import Model

# Batches as (decoding requests, their context tokens, prefill tokens), from idle to full.
TYPICAL = (
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


def typical_iterations(cost: CostModel, model: Model) -> list[dict[str, float]]:
    """Seconds of `TYPICAL` batches, those that the model's contexts allow."""
    return [
        {
            "decode_requests": decodes,
            "context_tokens": context,
            "prefill_tokens": prefill,
            "seconds": cost.iteration_s(_batch(decodes, context, prefill)),
        }
        for decodes, context, prefill in TYPICAL
        if max(context, prefill) <= model.max_model_len
    ]


def describe_profile(
    shown: Profile, model: Model, tensor_parallel: int, kernel: str, cost_model: str, all_reduce: AllReduce | None
) -> dict[str, Any]:
    """Where the figures come from, and how far they are right."""
    return {
        "name": shown.name,
        "basis": shown.basis,
        "gpu": asdict(shown.gpu),
        "provenance": asdict(shown.provenance),
        "sources": {
            **shown.sources,
            **{f"attention, {name}": fit.source for name, fit in shown.kernels.items()},
        },
        "errors": errors_by_operator(shown),
        "host_overhead": asdict(shown.host),
        "content_hash": shown.content_hash,
        "model": model.name,
        "tensor_parallel": tensor_parallel,
        "kernel": kernel,
        "kernel_basis": basis_of(shown, model, kernel, tensor_parallel, all_reduce),
        "all_reduce": None if all_reduce is None else {"measured": all_reduce.measured, "source": all_reduce.source},
        "cost_model": cost_model,
    }


def errors_by_operator(shown: Profile) -> dict[str, Any]:
    """Held-out errors by operator; operators without measurements are left out."""
    attention = {
        f"attention, {kernel}, {kind}": errors
        for kernel, fit in shown.kernels.items()
        for kind, errors in fit.errors.items()
    }
    return {name: errors for name, errors in {**shown.errors, **attention}.items() if errors}


def print_report(report: dict[str, Any], iterations: list[dict[str, float]]) -> None:
    """Print what `describe_profile` and `typical_iterations` return."""
    click.echo(f"{report['name']} ({report['basis']})")
    for field, value in report["provenance"].items():
        click.echo(f"  {field}: {'not known' if value is None else value}")
    for operator, source in report["sources"].items():
        click.echo(f"  {operator}: {source}")
    click.echo(f"  content hash: {report['content_hash']}")
    print_errors(report["errors"])
    click.echo(
        f"\n{report['model']}, tensor parallel {report['tensor_parallel']}, kernel {report['kernel']}, "
        f"cost model {report['cost_model']}: seconds of an iteration ({report['kernel_basis']})"
    )
    print_table(
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


def print_errors(errors: dict[str, Any]) -> None:
    """Held-out errors, in one table for each set of columns."""
    if not errors:
        click.echo("\nNothing measured, no errors to report.")
        return
    click.echo("\nErrors on held-out points, %")
    for columns in dict.fromkeys(tuple(row) for row in errors.values()):
        rows = [
            (name, *(f"{value:g}" for value in row.values())) for name, row in errors.items() if tuple(row) == columns
        ]
        print_table(("operator", *(column.removesuffix("_pct") for column in columns)), rows)


def print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Rows of texts under a header."""
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


def draw_profile(shown: Profile, model: Model, cost: CostModel, basis: str, out: Path) -> Path:
    """Milliseconds of a decode iteration over its requests, one line per context length; what they rest on above."""
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
        axes.set_title(f"{model.name} on {shown.name}\n{basis}", fontsize="medium")
        axes.legend(title="context tokens each")
        return save(figure, out / "profile.png")


def _batch(decodes: int, context: int, prefill: int) -> Batch:
    chunks = (Prefill(prefill, 0),) if prefill else ()
    return Batch(np.full(decodes, context, dtype=np.int64), decodes * context, chunks)
