"""``l4sim validate points``: a table of benchmarks' closed loops, each simulated and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from l4sim.recordings.points.summary import Points

_MS = 1e3


@click.command("points")
@click.argument("table", type=click.Path(path_type=Path), metavar="FILE.csv")
@click.option("--models", type=click.Path(path_type=Path), metavar="FOLDER", help="Models that are not bundled.")
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, metavar="N", help="Processes.")
@click.option("--worst", type=click.IntRange(min=0), default=10, show_default=True, metavar="N", help="To name.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout.")
def points_command(table: Path, models: Path | None, jobs: int, worst: int, as_json: bool) -> None:
    """Simulate every row of a table of measured points, and print how far off mean TTFT and TPOT are.

    A row is a closed loop on one instance: model, GPU, engine, parallelism, tokens, requests at a time. Rows that
    repeat each other count once, with the median of what was measured; those that are not simulated are told with the
    reason. Nothing is fitted to them. In --models each model has a folder, owner__name or name, with its config.json.
    """
    from l4sim.recordings.points.predict import predict_points
    from l4sim.recordings.points.rows import read_points
    from l4sim.recordings.points.summary import Points
    from l4sim.results.write import dump_json

    points, refused = read_points(table)
    predicted, unsimulated = predict_points(
        points, models=models, jobs=jobs, say=lambda line: click.echo(line, err=True)
    )
    found = Points(tuple(predicted), tuple(sorted([*refused, *unsimulated])))
    if as_json:
        click.echo(dump_json(found.to_json()), nl=False)
    else:
        _print(found, worst)


def _print(found: Points, worst: int) -> None:
    from rich.console import Console
    from rich.table import Table

    # As in `validate all`: lines are read by other programs.
    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    console.print(
        f"{found.rows:,} rows: {len(found.predicted):,} points simulated, {len(found.refused):,} rows refused"
    )
    table = Table(
        "by", "", "points", "TPOT", "TTFT", "TPOT mean", "TTFT mean", title="Mean absolute error, and mean error, %"
    )
    whole = found.whole
    for group in (*(() if whole is None else (whole,)), *found.groups):
        table.add_row(
            group.by,
            group.name,
            f"{group.points:,}",
            f"{group.tpot_mape_pct:.1f}",
            f"{group.ttft_mape_pct:.1f}",
            f"{group.tpot_bias_pct:+.1f}",
            f"{group.ttft_bias_pct:+.1f}",
        )
    console.print(table)
    if worst and found.predicted:
        rows = Table("lines", "point", "TPOT, ms", "error, %", "TTFT, ms", "error, %", title="Farthest off, by TPOT")
        for each in found.worst(worst):
            point = each.point
            rows.add_row(
                ", ".join(map(str, point.lines)),
                point.name,
                f"{point.tpot_s * _MS:.2f} {each.tpot_s * _MS:.2f}",
                f"{each.tpot_error_pct:+.1f}",
                f"{point.ttft_s * _MS:.1f} {each.ttft_s * _MS:.1f}",
                f"{each.ttft_error_pct:+.1f}",
            )
        console.print(rows)
    for reason, count in found.reasons.most_common():
        console.print(f"refused, {count:,} rows: {reason}")
