"""``l4sim trace``: statistics of a trace, traces between formats, synthetic traces."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from l4sim.cli.trace_synth import synth
from l4sim.workload.formats import FORMATS
from l4sim.workload.load import load_trace
from l4sim.workload.own_parquet import NAME as OWN
from l4sim.workload.raw_records import UNITS_PER_S
from l4sim.workload.save import FORMATS as WRITTEN
from l4sim.workload.save import save_trace
from l4sim.workload.statistics import Lengths, TraceStatistics, describe

_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_HELP)
def trace() -> None:
    """Describe, convert and generate traces."""


def _loading(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how a trace file is read."""
    for option in (
        click.option("--limit", type=int, metavar="N", help="Only the first N requests."),
        click.option(
            "--dejitter",
            "dejitter_s",
            type=float,
            metavar="S",
            help="Spread arrivals over a coarse clock's tick of S s.",
        ),
        click.option(
            "--trace-block-size",
            type=int,
            metavar="N",
            help="Tokens that an id of a prefix block stands for, where the trace does not say.",
        ),
        click.option(
            "--tokens",
            default="estimate",
            show_default=True,
            metavar="TOKENIZER",
            help="How texts are counted: 'estimate', or a tokenizer's name or file.",
        ),
        click.option(
            "--time-unit",
            type=click.Choice(["auto", *UNITS_PER_S]),
            default="auto",
            show_default=True,
            help="Unit of numeric times, where it is not the format's own.",
        ),
        click.option(
            "--format",
            default="auto",
            show_default=True,
            metavar="NAME",
            help=f"The trace's format, where it is not to be recognised: {', '.join([OWN, *FORMATS])}; or another "
            "package's, or MODULE:ATTRIBUTE.",
        ),
        click.argument("path", metavar="TRACE"),
    ):
        command = option(command)
    return command


@trace.command(context_settings=_HELP)
@_loading
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(path: str, as_json: bool, **reading: Any) -> None:
    """Describe TRACE: lengths, arrivals, sessions, prefixes, and traps for a simulation."""
    statistics = describe(load_trace(path, **reading))
    if as_json:
        click.echo(json.dumps(statistics.to_dict(), indent=2))
    else:
        _print(statistics)


@trace.command(context_settings=_HELP)
@_loading
@click.argument("out", metavar="OUT")
@click.option("--to", "to", type=click.Choice(list(WRITTEN)), help="Format of OUT, else told from its suffix.")
@click.option(
    "--block-size", type=int, metavar="N", help="Tokens per id of a prefix block in Mooncake lines  [default: 512]"
)
def convert(path: str, out: str, to: str | None, block_size: int | None, **reading: Any) -> None:
    """Write TRACE to OUT as Mooncake JSON lines (.jsonl, .jsonl.gz) or l4sim's parquet (.parquet)."""
    loaded = load_trace(path, **reading)
    lost = save_trace(loaded, out, to, block_tokens=block_size)
    for warning in (*loaded.warnings, *lost):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{len(loaded)} requests written to {out}", err=True)


def _print(statistics: TraceStatistics) -> None:
    """The statistics as tables for people."""
    from rich.console import Console
    from rich.table import Table

    # A pipe has no width of its own, and cut numbers are no use in a file.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, highlight=False)
    summary = Table(title=statistics.name, title_justify="left", show_header=False)
    for label, value in _summary(statistics):
        summary.add_row(label, value)
    console.print(summary)

    lengths = Table(title="Tokens", title_justify="left")
    columns = (*statistics.prompt_tokens.percentiles, "mean", "log μ", "log σ")
    for column in ("", *columns):
        lengths.add_column(column, justify="right" if column else "left")
    for label, row in (
        ("prompt", statistics.prompt_tokens),
        ("output", statistics.output_tokens),
        ("total", statistics.total_tokens),
    ):
        lengths.add_row(label, *_length_cells(row))
    console.print(lengths)

    longer = Table(title="Requests beyond", title_justify="left")
    for column in ("", *statistics.long_token_share):
        longer.add_column(column, justify="right" if column else "left")
    longer.add_row("share of tokens", *(f"{share:.2%}" for share in statistics.long_token_share.values()))
    longer.add_row("share of requests", *(f"{share:.2%}" for share in statistics.long_request_share.values()))
    console.print(longer)

    for heading, lines in (("warning", statistics.warnings), ("trap", statistics.traps)):
        for line in lines:
            console.print(f"{heading}: {line}", style="yellow", markup=False, soft_wrap=True)


def _summary(statistics: TraceStatistics) -> list[tuple[str, str]]:
    rows = [
        ("requests", f"{statistics.requests:,}"),
        ("duration", f"{statistics.duration_s:,.1f} s"),
        ("rate", _or_dash(statistics.rate_per_s, ".3f", " requests/s")),
        ("CV of inter-arrival times", _or_dash(statistics.cv_interarrival, ".2f")),
    ]
    rows += [(f"Fano factor, {window} windows", _or_dash(fano, ".2f")) for window, fano in statistics.fano.items()]
    rows += [
        ("Spearman, prompt and output", _or_dash(statistics.spearman_prompt_output, ".3f")),
        ("prefix reuse, infinite cache", _or_dash(statistics.prefix_reuse, ".2%")),
        ("sessions", f"{statistics.sessions:,}"),
        *([] if statistics.concurrency is None else [("at a time", f"{statistics.concurrency:,}")]),
        ("closed-loop requests", f"{statistics.closed_loop_requests:,}"),
    ]
    return rows


def _length_cells(lengths: Lengths) -> list[str]:
    counts: list[Any] = [*lengths.percentiles.values(), lengths.mean]
    return [f"{count:,.0f}" for count in counts] + [f"{lengths.lognormal_mu:.2f}", f"{lengths.lognormal_sigma:.2f}"]


def _or_dash(value: float | None, spec: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{spec}}{unit}"


trace.add_command(synth)
