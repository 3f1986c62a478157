"""Digests of the figures that runs leave, to show that a change of the code changes none of them.

    python -m tests.figures.digests check [NAME…]           against what is kept, in digests.json
    python -m tests.figures.digests record [NAME…]          keep what the runs leave now
    python -m tests.figures.digests check --tree DIR        the code in another working tree

Everything goes through the command line and the files that it writes, so that any code can be checked that has both.
A digest is of the exact bytes of a column: figures that differ in their last bit are told apart. NumPy and BLAS round
by the processor that they run on, so that on an unlike one only whole numbers and texts can be held, and that is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tests.figures.runs import FigureRun, all_runs

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("digests.json")

Columns = dict[str, str]
"""A column's type, length and digest, by the table's and the column's name."""

# What a run says of itself, and the seconds that the program took, are no figures; nor are texts.
_NO_FIGURES = {"config", "planning_s"}
# A JSON column's name is so many keys long: policies.l4 holds every latency's mean and quantiles.
_NAMES = 2
_DIGITS = 16
_FRACTIONS = ("float64", "json")


def digests(run: FigureRun, tree: Path, shared: Path | None) -> Columns:
    """Run a command line in this process, with ``tree``'s data, and digest all that it leaves.

    Raises:
        RuntimeError: the command was refused or broke; the message says how.
    """
    with tempfile.TemporaryDirectory() as out:
        for name, text in run.files.items():
            Path(out, name).write_text(text, encoding="utf-8")
        folders = {
            "traces": tree / "traces",
            "reports": tree / "validate_gpu" / "reports",
            "shared": shared,
            "out": out,
        }
        printed = _called([word.format(**folders) for word in run.command.split()])
        found = _of_json("printed", printed) if "--json" in run.command.split() else {}
        for path in sorted(Path(out).rglob("*.parquet")):
            # A point's file is named by the code's hash; all points are in sweep.parquet.
            if path.parent.name != "points":
                found |= _of_table(path.relative_to(out).with_suffix("").as_posix(), path)
        summary = Path(out, "summary.json")
        return found | (_of_json("summary", summary.read_text(encoding="utf-8")) if summary.is_file() else {})


def differences(kept: Mapping[str, str], found: Mapping[str, str], *, exact: bool = True) -> list[str]:
    """A line for each column that is not as it was kept; fractions only if ``exact``."""
    changed = [
        f"{name}: {kept[name]} was kept, {found[name]} is found"
        for name in kept
        if name in found and kept[name] != found[name] and (exact or not kept[name].startswith(_FRACTIONS))
    ]
    gone = [f"{name}: is gone" for name in kept if name not in found]
    return changed + gone + [f"{name}: is new" for name in found if name not in kept]


@dataclass(frozen=True, slots=True)
class Kept:
    """What was recorded."""

    rounding: str
    """`rounding` where it was."""
    runs: Mapping[str, Columns]


def read_kept() -> Kept:
    """What was recorded last."""
    told = json.loads(KEPT.read_text(encoding="utf-8"))
    return Kept(told["rounding"], told["runs"])


def rounding() -> str:
    """A digest of how this machine rounds: of the operations whose last bits depend on the processor."""
    import numpy as np

    values = np.random.default_rng(0).uniform(0.1, 30.0, (40, 40))
    found = [values @ values, values @ values[0], np.exp(values), np.log(values), np.log2(values), values**0.37]
    return _sha(b"".join(part.tobytes() for part in (*found, values.sum(axis=0), values.sum(axis=1), values.sum())))


def _called(arguments: Sequence[str]) -> str:
    from l4sim.cli import main

    printed, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaint):
        try:
            main(list(arguments))
        except SystemExit as end:
            # 1 says only that a validation's figure is beyond the tolerance: an error would have been raised.
            if end.code not in (0, 1):
                raise RuntimeError(f"l4sim {' '.join(arguments)}: {complaint.getvalue().strip()}") from None
        except Exception as error:
            raise RuntimeError(f"l4sim {' '.join(arguments)}: {type(error).__name__}: {error}") from error
    return printed.getvalue()


def _of_table(name: str, path: Path) -> Columns:
    """Digests of a table's columns; each policy's rows apart."""
    import pandas as pd

    table = pd.read_parquet(path)
    if "policy" not in table:
        return {f"{name}.{column}": _of_column(table[column]) for column in table}
    return {
        f"{name}[{policy}].{column}": _of_column(rows[column])
        for policy, rows in table.groupby("policy", sort=False)
        for column in rows
    }


def _of_column(values: Any) -> str:
    array = values.to_numpy()
    if array.dtype.kind == "O" or array.dtype.kind not in "biuf":
        kind, data = "text", json.dumps([str(value) for value in array]).encode()
    else:
        kind, data = str(array.dtype), array.tobytes()
    return f"{kind}[{len(array)}] {_sha(data)}"


def _of_json(name: str, text: str) -> Columns:
    groups: dict[str, list[str]] = defaultdict(list)
    for path, value in _leaves(json.loads(text), ()):
        groups[".".join((name, *[key for key in path if isinstance(key, str)][:_NAMES]))].append(f"{path}: {value!r}")
    return {group: f"json[{len(lines)}] {_sha(chr(10).join(lines).encode())}" for group, lines in groups.items()}


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        for key in sorted(value.keys() - _NO_FIGURES):
            yield from _leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    elif not isinstance(value, str):
        yield path, value


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _chosen(names: Sequence[str], *, quick: bool, shared: Path | None) -> Iterator[FigureRun]:
    runs = list(all_runs())
    unknown = [name for name in names if not any(_is_in(run.name, name) for run in runs)]
    if unknown:
        raise click.BadParameter(f"no run {', '.join(unknown)}; there are {', '.join(run.name for run in runs)}")
    for run in runs:
        if (not names or any(_is_in(run.name, name) for name in names)) and (run.quick or not quick):
            if run.needs_shared and shared is None:
                click.echo(f"{run.name}: left out, it needs the shared data (set L4SIM_SHARED)", err=True)
            else:
                yield run


def _is_in(name: str, group: str) -> bool:
    return name == group or name.startswith(f"{group}/")


def _shared() -> Path | None:
    path = Path(os.environ.get("L4SIM_SHARED", ROOT.parent / "shared"))
    return path if path.is_dir() else None


def _use(tree: Path) -> None:
    """Import l4sim from a working tree, here and in the processes that are started."""
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    import l4sim

    if not Path(str(l4sim.__file__)).is_relative_to(tree):
        raise click.ClickException(f"l4sim comes from {l4sim.__file__}, not from {tree}")


_names = click.argument("names", nargs=-1, metavar="[NAME]…")
_tree = click.option(
    "--tree",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=ROOT,
    help="The working tree whose code runs, with its traces and profiles  [default: this one]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Hold the figures of runs. NAME is a run's, or that of a group of them, such as policy or cost/tile."""


@cli.command()
@_names
@_tree
@click.option("--quick", is_flag=True, help="Only the runs that the tests check as well.")
def check(names: tuple[str, ...], tree: Path, quick: bool) -> None:
    """Run the command lines again; exit with 1 if a figure is not as it was kept."""
    _use(tree)
    shared, kept, unlike = _shared(), read_kept(), 0
    exact = kept.rounding == rounding()
    if not exact:
        click.echo(
            f"{KEPT.name} is of a processor that rounds otherwise: whole numbers and texts alone are held", err=True
        )
    for run in _chosen(names, quick=quick, shared=shared):
        began = time.process_time()
        try:
            lines = differences(kept.runs.get(run.name, {}), digests(run, tree, shared), exact=exact)
        except RuntimeError as error:
            lines = [str(error)]
        unlike += bool(lines)
        click.echo(f"{run.name}: {'DIFFERS' if lines else 'the same'} ({time.process_time() - began:.1f} s)")
        for line in lines:
            click.echo(f"    {line}")
    if unlike:
        raise click.ClickException(f"{unlike} runs differ from {KEPT.name}")


@cli.command()
@_names
@_tree
def record(names: tuple[str, ...], tree: Path) -> None:
    """Keep what the command lines leave now; without NAMEs everything, and what is no longer run is forgotten."""
    _use(tree)
    shared = _shared()
    runs = list(_chosen(names, quick=False, shared=shared))
    known = {run.name for run in all_runs()}
    kept = {name: columns for name, columns in read_kept().runs.items() if name in known}
    for run in runs:
        began = time.process_time()
        kept[run.name] = digests(run, tree, shared)
        click.echo(f"{run.name}: {len(kept[run.name])} columns ({time.process_time() - began:.1f} s)")
    ordered = {run.name: kept[run.name] for run in all_runs() if run.name in kept}
    told = {"rounding": rounding(), "runs": ordered}
    KEPT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli()
