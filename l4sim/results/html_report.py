"""A comparison as one HTML file: the question, the answer, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l4sim.results.changes import HEADLINE, METRICS, Comparison
from l4sim.results.changes_text import basis, cautions, short, verdict, who_loses
from l4sim.results.comparison_text import fates, heading, unfinished
from l4sim.results.held import closer_than_error, held_line
from l4sim.results.html import (
    Cell,
    Section,
    folded,
    paragraph,
    picture,
    profile_parts,
    remark,
    setting_rows,
    table,
    write_page,
)
from l4sim.results.numbers import change, precise
from l4sim.results.plots import figures

if TYPE_CHECKING:
    from l4sim.experiment import Setup
    from l4sim.experiment.setup import GroupSetup
    from l4sim.policies.plan import Stage
    from l4sim.results.run import Run
    from l4sim.workload.trace import Trace

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


def write_report(
    path: Path,
    trace: Trace,
    setup: Setup,
    runs: Sequence[Run],
    summaries: Sequence[Mapping[str, Any]],
    comparison: Comparison | None,
) -> Path:
    """Write the comparison as one self-contained HTML file, images included. The same result gives the same bytes.

    ``summaries`` holds `l4sim.results.metrics.summarise` of each run, ``comparison`` is
    `l4sim.results.changes.compare_runs` of all.

    Raises:
        InputError: it cannot be written.
    """
    names = [run.policy for run in runs]
    question = (
        f"Which of {', '.join(names[:-1])} and {names[-1]} serves this traffic best, and by how much?"
        if len(names) > 1
        else f"How does {names[0]} serve this traffic?"
    )
    lead = [
        paragraph(question),
        paragraph(verdict(comparison), "answer") if len(runs) > 1 else "",
        *(paragraph(line) for line in (who_loses(comparison) if comparison else ())),
        *(paragraph(line, "warning") for line in cautions(summaries)),
        paragraph(held_line(setup)),
        *(paragraph(line, "warning") for line in closer_than_error(setup, summaries)),
        *(paragraph(line, "warning") for line in unfinished(summaries)),
        *(paragraph(line, "warning") for line in fates(setup, summaries)),
        *(paragraph(line, "warning") for line in trace.warnings),
    ]
    configuration = setting_rows("", setup.options)
    for group in setup.groups:
        of = f", {group.spec.name}: " if len(setup.groups) > 1 else ": "
        configuration += setting_rows(f"engine{of}", group.engine)
    configuration += setting_rows("model: ", setup.model)
    sections = [
        Section("Figures", (_comparison(summaries), *(_changes(comparison) if comparison else ()))),
        Section("Pictures", tuple(_pictures(runs))),
        Section("Plan", tuple(_plans(runs))),
        Section(
            "How far the figures can be trusted",
            tuple(part for group in setup.groups for part in _trust(group)),
        ),
        Section(
            "Configuration",
            (
                _traffic(trace),
                folded("Every setting", table(("setting", "value"), configuration, "plain")),
            ),
        ),
    ]
    return write_page(path, heading(trace, setup), lead, sections)


def _trust(group: GroupSetup) -> Iterator[str]:
    all_reduces = () if group.all_reduce is None else (group.all_reduce,)
    return profile_parts(group.profile, group.kernel, group.basis, all_reduces)


def _comparison(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Figures as rows, policies as columns; behind each figure its change against the first policy."""
    header = ["", *(str(summary["policy"]) for summary in summaries)]
    counts = [f"{summary['requests']['finished']:,} of {summary['requests']['total']:,}" for summary in summaries]
    rows: list[list[Cell]] = [["requests finished", *counts]]
    for name, metric, statistic, scale in _ROWS:
        values = [float(summary[metric][statistic] if statistic else summary[metric]) for summary in summaries]
        changes = ["", *(change(value, values[0]) for value in values[1:])]
        rows.append([name, *((precise(scale * value), text) for value, text in zip(values, changes, strict=True))])
    rows.append(["migrations done", *(f"{summary['migrations']['done']:,}" for summary in summaries)])
    rows.append(["preemptions", *(f"{summary['preemptions']:,}" for summary in summaries)])
    return table(header, rows) + (
        remark(f"In small letters: change against {summaries[0]['policy']}.") if len(summaries) > 1 else ""
    )


def _changes(comparison: Comparison) -> Iterator[str]:
    """Changes of all figures over all requests, and of the mean normalized latency by length class."""
    policies = list(dict.fromkeys(each.policy for each in comparison.changes))
    rows = [(metric.words, *(short(comparison.change(policy, metric)) for policy in policies)) for metric in METRICS]
    yield paragraph(f"Changes in % against {comparison.against}:")
    yield table(("", *policies), rows)
    counts = {each.length_class: each.requests for each in comparison.changes}
    classes = {name: f"{name} tokens ({count:,} requests)" for name, count in counts.items() if name != "all"}
    if classes:
        yield paragraph(f"Of the {HEADLINE.words}, by the length of a request's context:")
        cells = [
            (title, *(short(comparison.change(policy, HEADLINE, name)) for policy in policies))
            for name, title in classes.items()
        ]
        yield table(("", *policies), cells)
    yield remark(f"{basis(comparison)}.")


def _pictures(runs: Sequence[Run]) -> Iterator[str]:
    for name, figure in figures(runs):
        if figure is not None:
            yield picture(figure, _CAPTIONS[name])


def _plans(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        if run.plan is not None:
            yield paragraph(f"Stages of {run.policy} at the start:")
            yield table(("stage", "context length (tokens)", "instances"), _stages(run.plan))


def _stages(plan: Iterable[Stage]) -> list[Sequence[str]]:
    return [
        (str(number), f"{stage.lo_tokens:,} to {stage.hi_tokens:,}", ", ".join(map(str, stage.instances)))
        for number, stage in enumerate(plan)
    ]


def _traffic(trace: Trace) -> str:
    """A table of the lengths of the trace's requests."""
    percentiles = (50, 90, 99, 100)
    rows = [
        (name, *(f"{tokens:,.0f}" for tokens in np.percentile(lengths, percentiles)))
        for name, lengths in (("prompt", trace.prompt_tokens), ("output", trace.output_tokens))
    ]
    return table((f"{len(trace):,} requests (tokens)", "median", "P90", "P99", "longest"), rows)
