"""`l4sim compare` and `l4sim replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l4sim.cli.grouped import GroupedCommand, grouped
from l4sim.cli.run_options import load_from_options, run_options, setup_from_options
from l4sim.policies.defaults import COMPARED, SOLE
from l4sim.specs.options import OUTPUT, POLICIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from l4sim.experiment import Setup
    from l4sim.results.result import Result
    from l4sim.workload.trace import Trace

# What config.json calls the trace's options: older than the names in `TraceOptions`.
_CONFIG_NAMES = {
    "format_name": "format",
    "time_unit": "time_unit",
    "tokens": "tokens",
    "trace_block_size": "trace_block_size",
    "dejitter": "dejitter_s",
    "rate": "rate_per_s",
    "rate_scale": "rate_scale",
    "concurrency": "concurrency",
    "limit": "limit",
    "duration": "duration_s",
}

_out = grouped(OUTPUT, "--out", type=click.Path(path_type=Path), help="Folder for tables and pictures.")
_plots = grouped(OUTPUT, "--plots/--no-plots", default=True, show_default=True, help="Draw pictures into --out.")
_timeline = grouped(OUTPUT, "--timeline", is_flag=True, help="Write timeline.json for Perfetto into --out.")
_window = grouped(
    OUTPUT, "--timeline-window", type=(float, float), metavar="S S", help="Only what overlaps these seconds of the run."
)
_html = grouped(OUTPUT, "--html", is_flag=True, help="Write report.html, one file with everything, into --out.")


@click.command(cls=GroupedCommand)
@run_options()
@grouped(POLICIES, "--policies", default=",".join(COMPARED), show_default=True, metavar="A,B,…", help="To compare.")
@_out
@_plots
@_timeline
@_window
@_html
def compare(policies: str, **values: Any) -> None:
    """Replay TRACE under several policies and compare them.

    Without a TRACE, a bundled long-context example. The first policy is the one that changes are counted from. A policy
    is a bundled one, one that an installed package offers, or MODULE:ATTRIBUTE.
    """
    _run([name.strip() for name in policies.split(",") if name.strip()], values)


@click.command(cls=GroupedCommand)
@run_options()
@grouped(POLICIES, "--policy", default=SOLE, show_default=True, help="To replay.")
@_out
@_plots
@_timeline
@_window
@_html
def replay(policy: str, **values: Any) -> None:
    """Replay TRACE under one policy.

    Without a TRACE, a bundled long-context example.
    """
    _run([policy], values)


def _run(policies: Sequence[str], values: dict[str, Any]) -> None:
    from l4sim.errors import InputError
    from l4sim.policies.registry import check_policy

    if not policies:
        raise InputError("--policies names no policy")
    for name in policies:
        check_policy(name)
    for name in ("timeline", "html"):
        if values[name] and values["out"] is None:
            raise InputError(f"--{name} needs --out")
    if values["timeline_window"] is not None and not values["timeline"]:
        raise InputError("--timeline-window needs --timeline")
    trace = load_from_options(values)
    setup = setup_from_options(values)

    from l4sim.experiment import compare as compare_policies
    from l4sim.results.result import Result

    with _Progress(len(policies), len(trace)) as progress:
        runs = compare_policies(trace, policies, setup, progress.update)
    result = Result(trace, setup, tuple(runs))
    config = _config(trace, policies, setup, values)
    if values["out"] is not None:
        _write(values["out"], config, result, values)
    if values["as_json"]:
        from l4sim.results.write import dump_json

        click.echo(dump_json({"config": config, **_summary(result)}), nl=False)
    else:
        _print(result)


def _config(trace: Trace, policies: Sequence[str], setup: Setup, values: dict[str, Any]) -> dict[str, Any]:
    summary = {"name": trace.name, "requests": len(trace), "sha256": trace.content_hash}
    return {
        **setup.describe(),
        "policies": list(policies),
        "trace": {**summary, **{name: values[option] for name, option in _CONFIG_NAMES.items()}},
    }


def _summary(result: Result) -> dict[str, Any]:
    """What summary.json holds."""
    comparison = {} if result.comparison is None else {"comparison": result.comparison.as_json()}
    return {"policies": result.summaries, **comparison}


def _write(out: Path, config: dict[str, Any], result: Result, values: dict[str, Any]) -> None:
    from l4sim.results.write import write_run

    written = write_run(out, config, result.runs, _summary(result))
    if values["plots"]:
        from l4sim.results.plots import draw_all

        written += draw_all(result.runs, out)
    if values["timeline"]:
        written += _write_timelines(out, result, values["timeline_window"])
    if values["html"]:
        written.append(result.to_html(out / "report.html"))
    click.echo(f"{out}: {', '.join(path.name for path in written)}", err=True)


def _write_timelines(out: Path, result: Result, window: tuple[float, float] | None) -> list[Path]:
    from l4sim.results.timeline import LOADABLE_BYTES, write_timeline

    written = []
    for run in result.runs:
        name = "timeline.json" if len(result.runs) == 1 else f"timeline-{run.policy}.json"
        path = write_timeline(run, out / name, window)
        written.append(path)
        size = path.stat().st_size
        if size > LOADABLE_BYTES:
            click.echo(f"{path}: {size >> 20} MiB is much for Perfetto: give a --timeline-window", err=True)
    return written


def _print(result: Result) -> None:
    from rich.console import Console

    from l4sim.experiment import planned_loop
    from l4sim.results.changes_text import cautions, changes_table, verdict, who_loses
    from l4sim.results.comparison_text import comparison_table, fates, heading
    from l4sim.results.held import closer_than_error, held_line

    console = Console(highlight=False)
    console.print(heading(result.trace, result.setup))
    console.print(held_line(result.setup))
    for run in result.runs:
        if run.plan is not None:
            console.print(f"plan of {run.policy}: {describe_plan(run.plan)}")
    loop = planned_loop(result.trace, result.setup) if any(run.plan for run in result.runs) else None
    if loop is not None:
        console.print(loop.in_words())
    for line in fates(result.setup, result.summaries):
        console.print(line)
    console.print(comparison_table(result.summaries))
    comparison = result.comparison
    if comparison is not None:
        console.print(changes_table(comparison))
    for line in cautions(result.summaries):
        console.print(line)
    for line in () if comparison is None else who_loses(comparison):
        console.print(line)
    console.print(verdict(comparison))
    for line in closer_than_error(result.setup, result.summaries):
        console.print(line)


def describe_plan(stages: Any) -> str:
    """A plan in one line."""
    return ", ".join(f"[{stage.lo_tokens:,}, {stage.hi_tokens:,}) tokens on {len(stage.instances)}" for stage in stages)


class _Progress:
    """A progress bar on stderr: policy, simulated time, requests done. Silent where stderr is no terminal."""

    def __init__(self, policies: int, requests: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("simulated {task.fields[time_s]:,.0f} s"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._requests = requests
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Progress:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def update(self, policy: str, time_s: float, ended: int) -> None:
        """Show how far a policy's replay is."""
        if policy not in self._tasks:
            self._tasks[policy] = self._bar.add_task(policy, total=self._requests, time_s=0.0)
        self._bar.update(self._tasks[policy], completed=ended, time_s=time_s)
