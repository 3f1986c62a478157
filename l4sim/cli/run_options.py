"""The options that compare, replay and plan share, and the trace and setup that they amount to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from l4sim.experiment import Setup
    from l4sim.workload.trace import Trace

Command = TypeVar("Command", bound=Callable[..., Any])

_COUNT = click.IntRange(min=1)
_POSITIVE = click.FloatRange(min=0, min_open=True)

_OPTIONS = [
    click.argument("trace", required=False, type=click.Path(path_type=Path)),
    click.option("--format", "format_name", default="auto", show_default=True, help="The trace's format."),
    click.option("--time-unit", type=click.Choice(["auto", "ns", "us", "ms", "s"]), default="auto", show_default=True),
    click.option("--tokens", default="estimate", show_default=True, help="Tokenizer for traces of text alone."),
    click.option("--dejitter", type=_POSITIVE, metavar="S", help="Spread arrivals within ticks of S seconds."),
    click.option("--rate", type=_POSITIVE, metavar="R", help="Arrivals at R requests/s."),
    click.option("--rate-scale", type=_POSITIVE, metavar="X", help="Arrivals X times as frequent."),
    click.option("--limit", type=_COUNT, metavar="N", help="The first N requests only."),
    click.option("--duration", type=_POSITIVE, metavar="S", help="Only requests arriving in the first S seconds."),
    click.option("--instances", type=_COUNT, default=16, show_default=True, metavar="N"),
    click.option("--model", default="llama-3.1-8b", show_default=True, help="A bundled name or a config.json."),
    click.option("--profile", default="h200-flashinfer", show_default=True, help="A bundled name or a folder."),
    click.option("--kernel", help="Attention kernel  [default: the profile's]"),
    click.option(
        "--cost-model",
        default="tile",
        show_default=True,
        help="How attention sees a batch: tile, mean, sum, skew, or affine.",
    ),
    click.option("--tensor-parallel", type=_COUNT, default=1, show_default=True, help="GPUs per instance."),
    click.option("--gpus-per-node", type=_COUNT, default=8, show_default=True),
    click.option("--intra-link", help="Link within a node  [default: the GPU's own]"),
    click.option("--inter-link", default="network-400g", show_default=True, help="Link between nodes."),
    click.option("--gpu-memory-utilization", type=float, default=0.9, show_default=True),
    click.option("--max-model-len", type=_COUNT, help="Longest context in tokens  [default: the model's]"),
    click.option("--max-num-seqs", type=_COUNT, help="Requests running at once  [default: vLLM's for the GPU]"),
    click.option("--max-num-batched-tokens", type=_COUNT, help="Tokens per iteration  [default: vLLM's for the GPU]"),
    click.option("--block-size", type=_COUNT, default=16, show_default=True, help="Tokens per KV block."),
    click.option("--kv-blocks", type=_COUNT, help="KV blocks per instance  [default: what fits the GPU]"),
    click.option("--prefix-caching/--no-prefix-caching", default=True, show_default=True),
    click.option(
        "--reserve-full-prompt/--no-reserve-full-prompt",
        default=True,
        show_default=True,
        help="Admit a request only when its whole prompt fits.",
    ),
    click.option("--async-scheduling/--no-async-scheduling", default=True, show_default=True),
    click.option("--fast-forward/--no-fast-forward", default=True, show_default=True, help="Skip quiet iterations."),
    click.option(
        "--plan-sample", type=float, default=0.2, show_default=True, help="Share of the trace that a plan may know."
    ),
    click.option(
        "--plan-histogram",
        type=click.Path(path_type=Path),
        metavar="FILE.csv",
        help="What a plan may know instead: rows of prompt_tokens, output_tokens, requests_per_s.",
    ),
    click.option(
        "--prefix-affinity/--no-prefix-affinity",
        default=True,
        show_default=True,
        help="Let l4 weigh where a prefix lives against where a length belongs.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable on stdout."),
]


def run_options(command: Command) -> Command:
    """Give a command the shared options; it takes them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load_from_options(values: dict[str, Any]) -> Trace:
    """The trace that the options name, cut and paced as they say; its warnings go to stderr.

    Raises:
        InputError: the trace cannot be read, or the options do not go together.
    """
    from l4sim.bundled import DEFAULT_TRACE, folder
    from l4sim.errors import InputError
    from l4sim.workload.load import load_trace
    from l4sim.workload.transform import pace

    if values["rate"] and values["rate_scale"]:
        raise InputError("--rate and --rate-scale exclude one another")
    path = values["trace"] or folder("traces") / DEFAULT_TRACE
    trace = load_trace(
        path,
        format=values["format_name"],
        time_unit=values["time_unit"],
        tokens=values["tokens"],
        dejitter_s=values["dejitter"],
        limit=values["limit"],
    )
    trace = pace(
        trace,
        rate_per_s=values["rate"],
        rate_scale=values["rate_scale"],
        duration_s=values["duration"],
        seed=values["seed"],
    )
    for warning in trace.warnings:
        click.echo(f"{trace.name}: {warning}", err=True)
    return trace


def setup_from_options(values: dict[str, Any]) -> Setup:
    """What the options amount to besides the trace.

    Raises:
        InputError: an unknown name or a value out of range.
    """
    from l4sim.experiment import Options, resolve

    given = {field.name: values[field.name] for field in fields(Options) if field.name in values}
    return resolve(Options(**given))
