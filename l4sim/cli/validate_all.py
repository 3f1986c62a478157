"""``l4sim validate all``: every recording under a folder, and how well constants fitted to the others predict it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from l4sim.recordings.every import Everything, Held

_SHOWN = ("ttft_s_mean", "ttft_s_p99", "tpot_s_mean", "tpot_s_p99", "e2e_s_mean", "e2e_s_p99", "finished_per_s")
_WORST = "e2e_s_mean"
_MS = 1e3


@click.command("all")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--record", is_flag=True, help="Keep what was fitted and how far off it is in profiles/ (a checkout's).")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout.")
def all_command(folder: Path, record: bool, as_json: bool) -> None:
    """Predict every recording under FOLDER, and print how far off each is, the worst first.

    Constants of hosts and front ends are fitted to the recordings. The second table is what counts: each run predicted
    with constants fitted to all others but itself.
    """
    from l4sim.recordings.every import validate_all
    from l4sim.recordings.kept import keep
    from l4sim.results.write import dump_json

    found = validate_all(folder, say=lambda line: click.echo(line, err=True))
    if record:
        for path in keep(found):
            click.echo(path, err=True)
    if as_json:
        click.echo(dump_json(found.to_json()), nl=False)
    else:
        _print(found)


def _print(found: Everything) -> None:
    from rich.console import Console
    from rich.table import Table

    # Lines are not wrapped where nobody sees a terminal's width: they are read by other programs.
    console = Console(highlight=False, width=None if Console().is_terminal else 220)
    held = sorted(found.held, key=_error_left_out, reverse=True)

    measured = Table(
        "run, measured", *_SHOWN, title="Measured and predicted with the bundled constants: ms, requests/s"
    )
    for each in held:
        figures = {figure.metric: figure for figure in each.bundled.all_figures}
        cells = [_cell(figures[name].metric, figures[name].measured, figures[name].predicted) for name in _SHOWN]
        measured.add_row(f"{each.name} ({each.replayed.recording.measured_at})", *cells)
    console.print(measured)

    errors = Table("run", "constants", *_SHOWN, title="Errors, %: with the bundled constants, and left out of the fit")
    for each in held:
        for constants, run in (("bundled", each.bundled), ("of the others", each.left_out.found)):
            figures = {figure.metric: figure for figure in run.all_figures}
            errors.add_row(each.name, constants, *(f"{figures[name].error_pct:+.1f}" for name in _SHOWN))
    console.print(errors)

    fitted = Table(
        "run",
        "host, ms",
        "request, ms",
        "streamed token, us",
        "E2E, % for 1 % of TPOT",
        title="Constants of the others, and how an error of iterations grows",
    )
    for each in held:
        fitted.add_row(each.name, *_constants(each))
    console.print(fitted)
    for refused in found.refused:
        console.print(f"refused: {refused.reason}")


def _error_left_out(held: Held) -> float:
    figures = {figure.metric: figure for figure in held.left_out.found.all_figures}
    return abs(figures[_WORST].error_pct)


def _cell(metric: str, measured: float, predicted: float) -> str:
    if metric.endswith("per_s"):
        return f"{measured:.2f} {predicted:.2f}"
    return f"{measured * _MS:.1f} {predicted * _MS:.1f}"


def _constants(held: Held) -> tuple[str, ...]:
    host, front_end = held.left_out.host, held.left_out.front_end
    iteration = "-" if host is None else f"{host.iteration_s * 1e3:.3g}"
    grows = "-" if held.e2e_per_tpot is None else f"{held.e2e_per_tpot:.1f}"
    if front_end is None:
        return iteration, "-", "-", grows
    return iteration, f"{front_end.request_s * 1e3:.3g}", f"{front_end.streamed_token_s * 1e6:.3g}", grows
