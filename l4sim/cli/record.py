"""``l4sim record``: vLLM runs as its own command, and its run is recorded."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("record", context_settings={"allow_interspersed_args": False})
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the recording; a new one.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-- COMMAND...")
@click.pass_context
def record(context: click.Context, out: Path, command: tuple[str, ...]) -> None:
    """Run a vLLM command (`vllm serve MODEL`, `vllm bench throughput`, ...) and record its engine's run.

    The command runs as it is, in its own environment, which needs nothing of l4sim; Ctrl-C ends it. The folder then
    holds meta.json, config.json, requests.jsonl.gz and iterations.jsonl.gz: l4sim profile fit, l4sim validate vllm.
    """
    from l4sim.recordings.start import record_command, recorded_folders

    code = record_command(command, out)
    found = recorded_folders(out)
    for folder in found:
        click.echo(f"recorded: {folder}", err=True)
    if not found:
        click.echo(f"l4sim: nothing was recorded: no vLLM engine ran in {command[0]}", err=True)
    context.exit(code or (0 if found else 1))
