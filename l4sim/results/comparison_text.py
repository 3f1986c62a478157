"""A comparison of policies as text: heading, table, what did not finish, and what became of instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from l4sim.results.numbers import change, precise
from l4sim.specs.events import Drain, Event, Fail, Join

if TYPE_CHECKING:
    from rich.table import Table

    from l4sim.experiment import Setup
    from l4sim.experiment.setup import GroupSetup
    from l4sim.workload.trace import Trace

Summary = Mapping[str, Any]
"""What `l4sim.results.metrics.summarise` returns."""

# Only the most frequent reasons are printed; summary.json has them all.
MAX_REASONS = 3


class _Column(NamedTuple):
    header: str
    metric: str
    statistic: str | None
    scale: float
    higher_is_better: bool


_COLUMNS = (
    _Column("output\ntokens\n/s", "throughput_tokens_per_s", None, 1, True),
    _Column("TTFT\nmean\ns", "ttft_s", "mean", 1, False),
    _Column("TTFT\nP99\ns", "ttft_s", "p99", 1, False),
    _Column("TPOT\nmean\nms", "tpot_s", "mean", 1e3, False),
    _Column("TPOT\nP99\nms", "tpot_s", "p99", 1e3, False),
    _Column("E2E\nmean\ns", "e2e_s", "mean", 1, False),
    _Column("E2E\nP99\ns", "e2e_s", "p99", 1, False),
    _Column("norm.\nmean\nms", "normalized_latency_s", "mean", 1e3, False),
)


def heading(trace: Trace, setup: Setup) -> str:
    """What was simulated, in one line."""
    gpus = [
        (
            group.spec.count,
            f"{group.profile.gpu.name} (profile {group.profile.name}: {group.basis}){_link(setup, group)}",
        )
        for group in setup.groups
    ]
    where = gpus[0][1] if len(gpus) == 1 else ", ".join(f"{count} on {gpu}" for count, gpu in gpus)
    loop = "" if trace.concurrency is None else f", {trace.concurrency:,} at a time,"
    return (
        f"{len(trace):,} requests of {trace.name}{loop} on {setup.instances} instances of {setup.model.name}, {where}"
    )


def _link(setup: Setup, group: GroupSetup) -> str:
    """A node's link, where it is not the GPU's own."""
    given = group.spec.intra_link or setup.options.intra_link
    return "" if given is None else f", node link {group.intra}"


def comparison_table(summaries: Sequence[Summary]) -> Table:
    """The policies as rows, the figures as columns; below each figure its change against the first policy.

    The best of a column carries an asterisk, unless all are alike. The caption says which
    requests did not finish and why (their counts are red), and whether the policies finished different requests.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    caption = "norm.: E2E / output tokens; *: best of its column; below: change against " + escape(
        str(summaries[0]["policy"])
    )
    warnings = [f"[bold red]{escape(line)}[/]" for line in unfinished(summaries)]
    table = Table(
        caption="\n".join([caption, *warnings]),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("\n\npolicy", no_wrap=True)
    table.add_column("\nrequests\nfinished", justify="right", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column.header, justify="right", no_wrap=True)
    columns = [_figures(column, [_value(summary, column) for summary in summaries]) for column in _COLUMNS]
    for row, summary in enumerate(summaries):
        # Wrapped at hyphens, so that the table fits 80 columns.
        name = "\n".join(wrap(escape(str(summary["policy"])), 12))
        table.add_row(name, _finished(summary), *(cells[row] for cells in columns))
    return table


def unfinished(summaries: Sequence[Summary]) -> list[str]:
    """A line per policy that did not finish every request (one for all if it is the same for all), and one more if the
    policies finished different requests.
    """
    line_of = {str(summary["policy"]): _unfinished_line(summary) for summary in summaries}
    lines = [f"{policy} {line}" for policy, line in line_of.items() if line]
    if len(lines) > 1 and len(set(line_of.values())) == 1:
        lines = [f"Every policy {_unfinished_line(summaries[0])}"]
    if _differ(summaries):
        lines.append("The policies finished different requests: their latencies are not of the same traffic.")
    return lines


def fates(setup: Setup, summaries: Sequence[Summary]) -> list[str]:
    """A line per policy about what was to happen to instances: what came of it, or that the run ended before."""
    lines = []
    for summary in summaries if setup.events else ():
        found = {("died", death["instance"]): death for death in summary["deaths"]}
        found |= {(change["change"], change["instance"]): change for change in summary["fleet_changes"]}
        joining = count(setup.instances)
        told = [
            _fate(event, next(joining) if isinstance(event, Join) else event.instance, found)
            for event in sorted(setup.events, key=lambda event: event.time_s)
        ]
        lines.append(f"{summary['policy']}: {'; '.join(told)}.")
    return lines


_FATES = {Join: ("joined", "never joined"), Drain: ("draining", "stayed"), Fail: ("died", "lived")}
"""What an event makes of an instance, as a run's changes have it, and what it does if the run ends before."""


def _fate(event: Event, instance: int, found: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    name, time = f"instance {instance}", f"{event.time_s:g} s"
    happening, otherwise = _FATES[type(event)]
    if (happening, instance) not in found:
        for earlier in ("died", "left"):
            if (earlier, instance) in found:
                return f"{name} had {earlier} before {time}"
        return f"{name} {otherwise}: the run was over before {time}"
    requests = found[happening, instance]["requests"]
    if isinstance(event, Join):
        return f"{name} joined at {time}"
    if isinstance(event, Fail):
        return f"{name} died at {time}, {requests:,} requests had to leave it"
    left = found.get(("left", instance))
    end = "had not left when the run was over" if left is None else f"left at {precise(left['time_s'])} s"
    return f"{name} drained from {time} (requests there: {requests:,}) and {end}"


def _differ(summaries: Sequence[Summary]) -> bool:
    return len({summary["finished_sha256"] for summary in summaries}) > 1


def _value(summary: Summary, column: _Column) -> float:
    figure = summary[column.metric]
    return column.scale * float(figure if column.statistic is None else figure[column.statistic])


def _figures(column: _Column, values: list[float]) -> list[str]:
    """One column's cells. Values that print alike count as equally good."""
    shown = [precise(value) for value in values]
    known = [value for value in values if value == value]
    best = precise((max if column.higher_is_better else min)(known)) if known else ""
    marked = len(set(shown)) > 1
    cells = [f"[bold green]{text}*[/]" if marked and text == best else text for text in shown]
    return (
        cells[:1]
        + [f"{cell}\n[dim]{change(value, values[0])}[/]" for cell, value in zip(cells, values, strict=True)][1:]
    )


def _finished(summary: Summary) -> str:
    requests = summary["requests"]
    if requests["finished"] == requests["total"]:
        return f"{requests['finished']:,}"
    return f"[bold red]{requests['finished']:,}\nof {requests['total']:,}[/]"


def _unfinished_line(summary: Summary) -> str:
    requests = summary["requests"]
    if requests["finished"] == requests["total"]:
        return ""
    parts = [
        f"{requests[status]:,} {status} ({_reasons(summary[f'{status}_reasons'])})"
        for status in ("rejected", "failed")
        if requests[status]
    ]
    return f"finished {requests['finished']:,} of {requests['total']:,} requests: {', '.join(parts)}."


def _reasons(reasons: Mapping[str, int]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) == 1:
        return ordered[0][0]
    named = [f"{count:,} {reason}" for reason, count in ordered[:MAX_REASONS]]
    rest = sum(count for _, count in ordered[MAX_REASONS:])
    return ", ".join([*named, f"{rest:,} for other reasons"] if rest else named)
