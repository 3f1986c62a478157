"""`l4sim sweep`."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from l4sim.sweeps.result import SweepResult
    from l4sim.sweeps.runner import Progress as Ended


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for points, tables and pictures.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Processes.")
@click.option("--executor", metavar="NAME", help="In place of --jobs: dask=ADDRESS, or submitit[=PARAMETER=VALUE,…].")
@click.option("--retry-failed", is_flag=True, help="Run points again that failed in an earlier call.")
@click.option("--slo", metavar="LIMITS", help="E.g. ttft_p99=2s,tpot_p99=50ms or ttft=2s,tpot=50ms,attainment=90%.")
@click.option("--search", type=click.Choice(["rate", "instances"]), help="Highest rate, or fewest instances, in --slo.")
@click.option("--price", type=float, metavar="USD", help="Per GPU-hour, for the cost per million output tokens.")
@click.option("--plots/--no-plots", default=True, show_default=True, help="Draw pictures into --out.")
@click.option("--html", is_flag=True, help="Write report.html, one file with everything, into --out.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout.")
def sweep(
    spec: Path,
    out: Path,
    jobs: int,
    executor: str | None,
    retry_failed: bool,
    slo: str | None,
    search: str | None,
    price: float | None,
    plots: bool,
    html: bool,
    as_json: bool,
) -> None:
    """Simulate every combination of the values in SPEC, or search for the capacity of each.

    SPEC is a YAML file of keys with a value or a list of values, such as

    \b
      policies: [round-robin, l4]
      rate: [10, 20, 40]
      seed: [0, 1, 2]
      synth: {preset: long-context-mix, requests: 1000, rate: 10}

    Keys are the options of `l4sim compare` with underscores, `policies`, `trace`, and `synth` with the options of
    `l4sim trace synth`. Points are stored in --out as they finish: the same call again goes on where the last stopped.
    """
    from l4sim.errors import InputError
    from l4sim.sweeps.processes import prepare

    if executor is not None and jobs > 1:
        raise InputError("--jobs and --executor exclude one another")
    if jobs > 1:
        prepare()
    from l4sim.sweeps.grid import read_grid
    from l4sim.sweeps.sweep import run_sweep

    with _Bar() as bar:
        result = run_sweep(
            read_grid(spec),
            out,
            where=str(spec),
            jobs=jobs,
            executor=executor,
            retry_failed=retry_failed,
            slo=slo,
            price_usd_per_gpu_hour=price,
            search=search,
            report=bar.show,
        )
    if len(result.failures) == len(result.points):
        raise InputError(f"{spec}: every point failed: {result.failures['error'].iloc[0]}")
    written = ["sweep.parquet", "means.parquet", *(["capacity.parquet"] if search else [])]
    if plots:
        written += _draw(result, out)
    if html:
        written.append(result.to_html(out / "report.html").name)
    if as_json:
        _print_json(result)
    else:
        _print(result)
    click.echo(f"{out}: {', '.join(written)}", err=True)


def _draw(result: SweepResult, out: Path) -> list[str]:
    """Names of the pictures; if there are too many panels none, and a line about it."""
    from l4sim.errors import InputError
    from l4sim.results.plots.style import save_all

    try:
        return [path.name for path in save_all(result.plot.figures(), out)]
    except InputError as error:
        click.echo(f"no pictures: {error}", err=True)
        return []


def _print_json(result: SweepResult) -> None:
    from l4sim.results.write import dump_json

    tables = {"points": result.points, "means": result.means, "capacity": result.capacity}
    click.echo(
        dump_json({name: None if table is None else table.to_dict("records") for name, table in tables.items()}),
        nl=False,
    )


def _print(result: SweepResult) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from l4sim.sweeps.caveats import failures, short_runs, unfinished
    from l4sim.sweeps.columns import COLUMNS, figure_text

    console = Console(highlight=False)
    rows, settings = result.answers, result.varied()
    columns = [column for column in COLUMNS if column.figure in rows]
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in settings:
        justify: Literal["left", "right"] = "left" if name == "policy" else "right"
        table.add_column(name.replace("_", "_\n"), justify=justify, no_wrap=True)
    for column in columns:
        table.add_column(column.header, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        table.add_row(
            *(escape(_setting(row[name])) for name in settings),
            *("\n".join(filter(None, figure_text(row, column))) for column in columns),
        )
    console.print(table)
    if "seeds" in rows and rows["seeds"].max() > 1:
        console.print("±: half the 95 % confidence interval of the mean over seeds")
    console.print(f"{len(result.points) - len(result.failures)} points done, {len(result.failures)} failed")
    for style, lines in (("red", failures(result)), ("red", unfinished(result)), ("yellow", short_runs(result))):
        for line in lines:
            console.print(escape(line), style=style, soft_wrap=True)


def _setting(value: Any) -> str:
    from l4sim.sweeps.columns import setting_text

    # Wrapped at hyphens, so that the table fits 80 columns.
    return "\n".join(wrap(setting_text(value), 12))


class _Bar:
    """Progress on stderr: points ended, failures, time left. Silent where stderr is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("points"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failures]} failed"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("points", total=None, failures=0)

    def __enter__(self) -> _Bar:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def show(self, ended: Ended) -> None:
        """Show how far the sweep is; stored points count as none, so that the time left is right."""
        self._bar.update(self._task, total=ended.points - ended.stored, completed=ended.ended, failures=ended.failures)
