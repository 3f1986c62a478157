"""A comparison as one file: the question, the answer, and how far it can be trusted."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4sim import __version__
from l4sim.results.plots import figures
from l4sim.results.plots.style import png
from l4sim.results.report import change, deaths, heading, precise, unfinished, verdict
from l4sim.results.write import unwritable

if TYPE_CHECKING:
    from l4sim.cost.profile import Profile
    from l4sim.experiment import Setup
    from l4sim.policies.l4.plan import Stage
    from l4sim.results.result import Result
    from l4sim.results.run import Run

# Row title, metric and statistic of the summary, scale.
_ROWS: tuple[tuple[str, str, str, float], ...] = (
    ("output tokens/s", "throughput_tokens_per_s", "", 1),
    ("TTFT mean (s)", "ttft_s", "mean", 1),
    ("TTFT P99 (s)", "ttft_s", "p99", 1),
    ("TPOT mean (ms)", "tpot_s", "mean", 1e3),
    ("TPOT P99 (ms)", "tpot_s", "p99", 1e3),
    ("E2E mean (s)", "e2e_s", "mean", 1),
    ("E2E P99 (s)", "e2e_s", "p99", 1),
    ("E2E / output tokens, mean (ms)", "normalized_latency_s", "mean", 1e3),
    ("E2E / output tokens, P99 (ms)", "normalized_latency_s", "p99", 1e3),
)
_CAPTIONS = {
    "latency_cdf": "How many requests finish within a latency",
    "latency_by_length": "Latency by context length",
    "instances": "Batch size and KV cache use of every instance over time",
    "queue": "Waiting requests over time",
    "heterogeneity": "How mixed the lengths within each instance's batches are: what L4 reduces",
    "plan": "Stages over time, and migrations",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 920px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-size: 14px } th, td { padding: 2px 12px 2px 0; text-align: right }
th:first-child, td:first-child { text-align: left } tr { border-bottom: 1px solid #eee }
.plain td, .plain th { text-align: left; vertical-align: top } .answer { font-size: 1.1em; font-weight: 600 }
.warning { color: #b00020 } small { color: #666 } figure { margin: 1.5em 0 } img { max-width: 100% }
"""


def write_report(path: Path, result: Result) -> Path:
    """Write the comparison as one HTML file that needs no other: images are inside. The same result, the same bytes.

    Raises:
        InputError: it cannot be written.
    """
    title = heading(result.trace, result.setup)
    policies = ", ".join(run.policy for run in result.runs)
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p>How do these policies serve this traffic on these instances: {escape(policies)}?</p>",
        f'<p class="answer">{escape(verdict(result.summaries))}</p>' if len(result.runs) > 1 else "",
        *(f'<p class="warning">{escape(line)}</p>' for line in unfinished(result.summaries)),
        *(f'<p class="warning">{escape(line)}</p>' for line in deaths(result.setup.failures, result.summaries)),
        *(f'<p class="warning">{escape(line)}</p>' for line in result.trace.warnings),
        "<h2>Figures</h2>",
        _comparison(result.summaries),
        *_pictures(result.runs),
        *_plans(result.runs),
        "<h2>How far the figures can be trusted</h2>",
        *_profile(result.setup.profile, result.setup.options.kernel or result.setup.profile.default_kernel),
        "<h2>Configuration</h2>",
        _configuration(result.setup),
        f"<p><small>l4sim {__version__}</small></p>",
    ]
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(filter(None, sections)) + "\n</body></html>\n"
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    return path


def _comparison(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Figures as rows, policies as columns; behind each figure its change against the first policy."""
    header = ["", *(str(summary["policy"]) for summary in summaries)]
    counts = [f"{summary['requests']['finished']:,} of {summary['requests']['total']:,}" for summary in summaries]
    rows = [["requests finished", *counts]]
    for name, metric, statistic, scale in _ROWS:
        values = [float(summary[metric][statistic] if statistic else summary[metric]) for summary in summaries]
        changes = ["", *(f" ({change(value, values[0])})" for value in values[1:])]
        rows.append([name, *(precise(scale * value) + text for value, text in zip(values, changes, strict=True))])
    rows.append(["migrations done", *(f"{summary['migrations']['done']:,}" for summary in summaries)])
    rows.append(["preemptions", *(f"{summary['preemptions']:,}" for summary in summaries)])
    return _table(header, rows) + (
        f"<p><small>In brackets: change against {escape(str(summaries[0]['policy']))}.</small></p>"
        if len(summaries) > 1
        else ""
    )


def _pictures(runs: Sequence[Run]) -> Iterator[str]:
    for name, figure in figures(runs):
        if figure is not None:
            image = b64encode(png(figure)).decode("ascii")
            caption = escape(_CAPTIONS[name])
            yield (
                f'<figure><img alt="{caption}" src="data:image/png;base64,{image}">'
                f"<figcaption><small>{caption}</small></figcaption></figure>"
            )


def _plans(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        if run.plan is not None:
            yield f"<h2>The plan of {escape(run.policy)}</h2>"
            yield _table(("stage", "context length (tokens)", "instances"), _stages(run.plan))


def _stages(plan: Iterable[Stage]) -> list[Sequence[str]]:
    return [
        (str(number), f"{stage.lo_tokens:,} to {stage.hi_tokens:,}", ", ".join(map(str, stage.instances)))
        for number, stage in enumerate(plan)
    ]


def _profile(profile: Profile, kernel: str) -> Iterator[str]:
    basis = profile.kernel_basis(kernel)
    warning = "" if basis == "measured" else ' class="warning"'
    yield (
        f"<p>Seconds come from the profile <b>{escape(profile.name)}</b>, attention kernel {escape(kernel)}: "
        f"<span{warning}>{escape(basis)}</span>. Its errors below are on points that the fit did not see; the errors "
        "of simulated latencies are not the same thing.</p>"
    )
    errors = {
        **{f"attention, {kind}": found for kind, found in profile.kernels[kernel].errors.items()},
        **profile.errors,
    }
    measured = {name: found for name, found in errors.items() if found}
    for columns in dict.fromkeys(tuple(found) for found in measured.values()):
        rows = [
            (name, *(f"{value:g}" for value in found.values()))
            for name, found in measured.items()
            if tuple(found) == columns
        ]
        yield _table(("operator", *columns), rows)
    missing = [name for name, found in errors.items() if not found]
    if not profile.kernels[kernel].errors:
        missing.insert(0, "attention")
    if missing:
        yield f'<p class="warning">Not measured: {escape(", ".join(missing))}.</p>'
    provenance = profile.provenance
    told = [(field.name, getattr(provenance, field.name) or "not known") for field in fields(provenance)]
    sources = [*profile.sources.items(), (f"attention, {kernel}", profile.kernels[kernel].source)]
    yield _table(("profile", ""), [*told, *sources, ("sha256", profile.content_hash)], "plain")


def _configuration(setup: Setup) -> str:
    groups = (("", setup.options), ("engine: ", setup.engine), ("model: ", setup.model))
    rows = [
        (prefix + field.name, str(getattr(group, field.name))) for prefix, group in groups for field in fields(group)
    ]
    return _table(("setting", "value"), rows, "plain")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
