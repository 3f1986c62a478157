"""``l4sim validate``: the simulator against live instances (by entry point), or a real engine's recorded run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from l4sim.cli import ExtensibleGroup
from l4sim.cli.grouped import GroupedCommand, grouped, options_of
from l4sim.cli.validate_all import all_command
from l4sim.cli.validate_points import points_command
from l4sim.specs.options import ENGINE, Options

if TYPE_CHECKING:
    from l4sim.recordings.comparison import Validation


def percent(_: click.Context, param: click.Parameter, text: str) -> float:
    """``2%`` or ``2``."""
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent < float("inf"):
        raise click.BadParameter(f"{text!r} is no percentage, accepted is a number >= 0 such as 2%", param=param)
    return percent


class _LiveByDefault(ExtensibleGroup):
    """A group in which what is no command's name is the trace of its command ``live``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.list_commands(ctx), *ctx.help_option_names):
            args = ["live", *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, "live")


@click.group(cls=_LiveByDefault, name="validate", subcommand_metavar="TRACE [OPTIONS] | COMMAND [ARGS]...")
def validate() -> None:
    """Hold the simulator against live instances, or against a recorded vLLM run.

    `l4sim validate TRACE` replays TRACE on both sides; its options are told by `l4sim validate live --help`. A trace
    that is called like a command needs its folder: ./vllm.
    """


_OWN_SECONDS = "Take the recorded seconds of every iteration: what can differ then are the engine's decisions alone."


@validate.command("vllm", cls=GroupedCommand)
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER|FILE")
@options_of(Options, (ENGINE,))
@grouped(ENGINE, "--tensor-parallel", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs.")
@click.option("--profile", help="A bundled name or a folder  [default: imported from FOLDER/profile]")
@click.option("--model", help="A bundled name or a config.json  [default: the one in FOLDER/meta.json]")
@click.option("--gpu", help="The bundled GPU of FOLDER/profile  [default: the one that it names]")
@click.option("--own-seconds", is_flag=True, help=_OWN_SECONDS)
@click.option("--tolerance", callback=percent, default="2%", show_default=True, help="Largest error to accept.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for validation.json and the replay's tables.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout.")
@click.pass_context
def vllm_command(
    context: click.Context,
    /,
    folder: Path,
    profile: str | None,
    model: str | None,
    gpu: str | None,
    own_seconds: bool,
    tolerance: float,
    out: Path | None,
    as_json: bool,
    **engine: Any,
) -> None:
    """Replay a recorded vLLM run and compare latencies.

    FOLDER is what l4sim record or LLMServingSim wrote (meta.json, requests.jsonl, ...), or clients (requests.csv); FILE
    is a report of vllm bench serve --save-detailed, AIPerf, guidellm or inference-perf. Options of the engine stand in
    for what was recorded of it; a client's report tells nothing of it.

    Exits with 1 if the error of a figure is beyond the tolerance. Nothing is fitted to the recorded requests.
    """
    from l4sim.recordings.replay import validate_vllm
    from l4sim.results.write import dump_json

    given = {
        name: value
        for name, value in engine.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    if own_seconds:
        _own_seconds(folder, model, given, as_json)
        return
    found = validate_vllm(folder, profile=profile, model=model, gpu=gpu, options=given)
    beyond = found.beyond(tolerance)
    report = found.to_json() | {"tolerance_pct": tolerance, "within_tolerance": not beyond}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "validation.json").write_text(dump_json(report), encoding="utf-8")
        found.run.requests.to_parquet(out / "requests.parquet", index=False)
        found.run.iterations.to_parquet(out / "iterations.parquet", index=False)
    if as_json:
        click.echo(dump_json(report), nl=False)
    else:
        _print(found, tolerance)
    if beyond:
        names = ", ".join(f"{figure.metric} {figure.error_pct:+.2f} %" for figure in beyond)
        click.echo(f"beyond {tolerance:g} %: {names}", err=True)
        sys.exit(1)


validate.add_command(all_command)
validate.add_command(points_command)


def _own_seconds(folder: Path, model: str | None, given: dict[str, Any], as_json: bool) -> None:
    """Print how far the engine's rules decide as the recorded engine did; exit with 1 where they do not."""
    from l4sim.recordings.own_seconds import validate_own_seconds
    from l4sim.results.write import dump_json

    found = validate_own_seconds(folder, model=model, options=given)
    if as_json:
        click.echo(dump_json(found.to_json()), nl=False)
    else:
        click.echo(found.in_words())
    if found.difference is not None:
        sys.exit(1)


def _print(found: Validation, tolerance: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from l4sim.results.held import held_line

    setup, console = found.setup, Console(highlight=False)
    console.print(
        f"{found.requests} requests on {setup.model.name}, tensor parallel {setup.options.tensor_parallel}; profile "
        f"{setup.profile.name} ({setup.groups[0].basis}), host overhead {setup.profile.host.decode_s * 1e3:g} ms "
        f"(with prompts {setup.profile.host.prompt_s * 1e3:g}); "
        f"{setup.engine.kv_blocks} KV blocks ({found.kv_blocks_from}); {found.preemptions} preemptions"
    )
    console.print(held_line(setup))
    for line in found.assumptions:
        console.print(line)
    table = Table("figure", "measured", "predicted", "error, %", f"within {tolerance:g} %")
    for figure in found.all_figures:
        within = "yes" if abs(figure.error_pct) <= tolerance else "no"
        table.add_row(
            figure.metric, f"{figure.measured:.4f}", f"{figure.predicted:.4f}", f"{figure.error_pct:+.2f}", within
        )
    console.print(table)
