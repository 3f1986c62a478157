"""``l4sim trace synth``: options to a synthetic trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from l4sim.workload.load import load_trace
from l4sim.workload.save import save_trace
from l4sim.workload.synth.named import ARRIVALS, synthesize_named
from l4sim.workload.synth.parse import LENGTH_NAMES
from l4sim.workload.synth.presets import PRESETS
from l4sim.workload.trace import IntArray, Trace

# What the options are called, by `synthesize_named`'s names.
SPELLING = {
    "lengths": "--preset",
    "prompt_lengths": "--prompt-lengths",
    "output_lengths": "--output-lengths",
    "lengths_from": "--lengths-from",
    "correlation": "--correlation",
    "arrivals": "--arrivals",
    "concurrency": "--concurrency",
    "requests": "--requests N",
    "duration_s": "--duration S",
    "rate_per_s": "--rate",
    "cv": "--cv",
    "on_s": "--on",
    "off_s": "--off",
    "off_ratio": "--off-ratio",
    "amplitude": "--amplitude",
    "period_s": "--period",
    "peak_s": "--peak",
    "segments": "--segments",
    "turns": "--turns",
    "think_s_mean": "--think",
    "system_tokens": "--system-tokens",
    "block_tokens": "--block-size",
    "max_model_len": "--max-model-len",
    "over_limit": "--over-limit",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--preset", "preset_name", type=click.Choice(list(PRESETS)), help="Lengths of a named kind of traffic.")
@click.option(
    "--prompt-lengths",
    metavar="DIST",
    help=f"Prompt lengths, e.g. lognormal:mu=7,sigma=1.1,max=8192; names: {', '.join(LENGTH_NAMES)}; "
    "mixtures as 0.7*DIST+0.3*DIST. With --preset, in place of the preset's.",
)
@click.option("--output-lengths", metavar="DIST", help="Output lengths, likewise.")
@click.option("--lengths-from", metavar="TRACE", help="Lengths drawn from the rows of another trace.")
@click.option("--correlation", type=float, metavar="RHO", help="Spearman correlation of prompt and output lengths.")
@click.option("--requests", type=int, metavar="N", help="How many requests.")
@click.option("--duration", "duration_s", type=float, metavar="S", help="All arrivals within so many seconds.")
@click.option(
    "--arrivals",
    "process",
    type=click.Choice(list(ARRIVALS)),
    help="The process  [default: poisson]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="A closed loop in place of arrivals: so many requests (of sessions: sessions) at a time. Written as .parquet.",
)
@click.option("--rate", "rate_per_s", type=float, metavar="R", help="Mean arrivals per second.")
@click.option("--cv", type=float, help="Coefficient of variation of the gaps (gamma, weibull).")
@click.option("--on", "on_s", type=float, metavar="S", help="Mean seconds of a burst (onoff).")
@click.option("--off", "off_s", type=float, metavar="S", help="Mean seconds between bursts (onoff).")
@click.option("--off-ratio", type=float, metavar="X", help="Rate between bursts over rate within (onoff)  [default: 0]")
@click.option("--amplitude", type=float, metavar="X", help="Swing around the mean rate, 0 to 1 (diurnal).")
@click.option("--period", "period_s", type=float, metavar="S", help="Seconds of a day (diurnal)  [default: 86400]")
@click.option(
    "--peak", "peak_s", type=float, metavar="S", help="Seconds from the start to a peak (diurnal)  [default: 0]"
)
@click.option("--segments", metavar="S:R,...", help="Seconds and rate of each segment, repeated (piecewise).")
@click.option(
    "--turns",
    type=float,
    metavar="X",
    help="Mean turns per session: every arrival then starts a session of prompts that grow.",
)
@click.option("--think", "think_s_mean", type=float, metavar="S", help="Mean seconds from an answer to the next turn.")
@click.option("--system-tokens", type=int, metavar="N", help="System prompt shared by all sessions  [default: 0]")
@click.option("--block-size", "block_tokens", type=int, metavar="N", help="Tokens per prefix-block id  [default: 512]")
@click.option("--max-model-len", type=int, metavar="N", help="Limit of prompt and output tokens together.")
@click.option(
    "--over-limit", type=click.Choice(["clip", "drop"]), help="What to do with longer requests  [default: clip]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same trace.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def synth(
    out: Path,
    preset_name: str | None,
    prompt_lengths: str | None,
    output_lengths: str | None,
    lengths_from: str | None,
    correlation: float | None,
    requests: int | None,
    duration_s: float | None,
    process: str | None,
    concurrency: int | None,
    turns: float | None,
    max_model_len: int | None,
    over_limit: Literal["clip", "drop"] | None,
    seed: int,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Make a synthetic trace.

    It is written to OUT as Mooncake JSON lines (.jsonl, .jsonl.gz) or as l4sim's own parquet (.parquet).
    """
    trace = synthesize_named(
        lengths=preset_name,
        prompt_lengths=prompt_lengths,
        output_lengths=output_lengths,
        lengths_from=None if lengths_from is None else lambda: _source(lengths_from),
        correlation=correlation,
        requests=requests,
        duration_s=duration_s,
        arrivals=process,
        concurrency=concurrency,
        turns=turns,
        max_model_len=max_model_len,
        over_limit=over_limit,
        seed=seed,
        parameters=parameters,
        spelling=SPELLING,
    )
    lost = save_trace(trace, out, block_tokens=None if out.suffix == ".parquet" else parameters.get("block_tokens"))
    for warning in (*trace.warnings, *lost):
        click.echo(f"warning: {warning}", err=True)
    summary = _summary(trace)
    click.echo(
        json.dumps({"path": str(out), **summary, "warnings": trace.warnings}) if as_json else _as_text(out, summary)
    )


def _source(path: str) -> Trace:
    trace = load_trace(path)
    for warning in trace.warnings:
        click.echo(f"warning: {path}: {warning}", err=True)
    return trace


def _summary(trace: Trace) -> dict[str, Any]:
    return {
        "requests": len(trace),
        "sessions": len(np.unique(trace.session[trace.session >= 0])),
        "last_open_loop_arrival_s": float(np.nanmax(trace.arrival_s)),
        "prompt_tokens": _percentiles(trace.prompt_tokens),
        "output_tokens": _percentiles(trace.output_tokens),
    }


def _percentiles(tokens: IntArray) -> dict[str, float]:
    p50, p99 = np.percentile(tokens, (50, 99))
    return {"mean": float(tokens.mean()), "p50": float(p50), "p99": float(p99), "max": float(tokens.max())}


def _as_text(out: Path, summary: dict[str, Any]) -> str:
    in_sessions = f" in {summary['sessions']} sessions" if summary["sessions"] else ""
    head = f"{out}: {summary['requests']} requests{in_sessions}"
    head += f", the last open-loop arrival at {summary['last_open_loop_arrival_s']:.1f} s"
    lines = [
        f"  {kind} tokens: " + ", ".join(f"{name} {value:,.0f}" for name, value in summary[f"{kind}_tokens"].items())
        for kind in ("prompt", "output")
    ]
    return "\n".join([head, *lines])
