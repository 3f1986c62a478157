"""Who wins and who loses: per case, per length class, and over all cases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.cases import Case
from benchmarks.rivals.measure import Measured
from l4sim.results.changes import HEADLINE, LOSS, METRICS, Change, Metric, PairedRuns, paired_by_seed
from l4sim.results.changes_text import in_words, short
from l4sim.results.run import Run

P99_TTFT = next(metric for metric in METRICS if (metric.name, metric.statistic) == ("ttft_s", "p99"))
# By how much a P99 TTFT may be above the best rival's and count as near it.
NEAR = 0.10


@dataclass(frozen=True)
class Outcome:
    """One case: the policy that is judged against each rival."""

    case: str
    group: str
    """Attention kernel, and whether prefixes are cached."""
    traces: int
    """Seeds or stretches."""
    changes: Mapping[tuple[str, Metric, str], Change]
    """By rival, figure and length class (``all``, …)."""
    unfinished: tuple[str, ...]
    """Lines about policies that did not finish all requests, or could not run."""

    @property
    def rivals(self) -> list[str]:
        """Whom the policy was held against."""
        return list(dict.fromkeys(rival for rival, _, _ in self.changes))

    @property
    def classes(self) -> list[str]:
        """The length classes there are."""
        return [name for name in dict.fromkeys(name for _, _, name in self.changes) if name != "all"]


def outcome(case: Case, measured: Sequence[Measured], policy: str) -> Outcome:
    """Hold a policy against every other one: paired by seed where there are several traces, else by request."""
    ran = [name for name in measured[0].runs if all(name in each.runs for each in measured)]
    if policy not in ran:
        return Outcome(case.name, measured[0].group, len(measured), {}, tuple(_unfinished(measured)))
    changes = {}
    for rival in (name for name in ran if name != policy):
        pairs = [PairedRuns([each.runs[policy], each.runs[rival]], rival) for each in measured]
        classes = dict.fromkeys(name for pair in pairs for name in ("all", *pair.classes))
        for metric in METRICS:
            for name in classes if metric.statistic != "rate" else ("all",):
                changes[rival, metric, name] = _change(pairs, policy, rival, metric, name)
    return Outcome(case.name, measured[0].group, len(measured), changes, tuple(_unfinished(measured)))


def _change(pairs: Sequence[PairedRuns], policy: str, rival: str, metric: Metric, length_class: str) -> Change:
    having = [pair for pair in pairs if length_class in ("all", *pair.classes)]
    if len(pairs) == 1:
        return pairs[0].change(policy, rival, metric, length_class).change
    values = np.array([[pair.value(name, metric, length_class) for name in (policy, rival)] for pair in having])
    return paired_by_seed(values[:, 0], values[:, 1], higher_is_better=metric.higher_is_better)


def _unfinished(measured: Sequence[Measured]) -> Iterator[str]:
    for name in dict.fromkeys(name for each in measured for name in each.runs):
        runs: list[Run] = [each.runs[name] for each in measured if name in each.runs]
        total = sum(len(run.requests) for run in runs)
        finished = sum(int((run.requests["status"] == "finished").sum()) for run in runs)
        if finished < total:
            yield f"{name} finished {finished:,} of {total:,} requests"
    for name, error in {name: error for each in measured for name, error in each.errors.items()}.items():
        yield f"{name} left out: {error}"


def case_lines(found: Outcome, policy: str) -> Iterator[str]:
    """The table of a case, who loses in it, and what did not finish."""
    yield f"{found.case} ({found.group}; {found.traces} trace{'s' * (found.traces > 1)}): {policy} in %"
    yield f"  {'against':22s}" + "".join(f"{header:>14s}" for header in _HEADERS)
    for rival in found.rivals:
        cells = (short(found.changes[rival, metric, "all"]) for metric in METRICS)
        yield f"  {rival:22s}" + "".join(f"{cell:>14s}" for cell in cells)
    for name in found.classes:
        against = {rival: found.changes.get((rival, HEADLINE, name)) for rival in found.rivals}
        worst, change = max(against.items(), key=lambda item: _size(item[1]))
        if change is not None and change.change > LOSS:
            unsure = " (cannot tell)" if change.verdict == "cannot tell" else ""
            yield f"  loses: {name} tokens, {in_words(change)} against {worst}{unsure}"
    yield from (f"  {line}" for line in found.unfinished)


_HEADERS = ("norm. mean", "TTFT mean", "TTFT P99", "E2E P99", "tokens/s")


def _size(change: Change | None) -> float:
    return -math.inf if change is None or math.isnan(change.change) else change.change


def summary_lines(outcomes: Sequence[Outcome], policy: str) -> Iterator[str]:
    """Over all cases: behind whom, how much against each rival by group and by length class, how near the best tail."""
    judged = [each for each in outcomes if each.changes]
    if not judged:
        return
    behind = {each.case: _ahead(each) for each in judged}
    clean = sum(not rivals for rivals in behind.values())
    of = f"of {len(judged)} case{'s' * (len(judged) > 1)}"
    yield f"mean normalized latency: {policy} is behind no rival by more than the interval in {clean} {of}"
    yield from (f"  behind {', '.join(rivals)}: {case}" for case, rivals in behind.items() if rivals)
    near = [each for each in judged if all(_size(each.changes[name, P99_TTFT, "all"]) <= NEAR for name in each.rivals)]
    yield f"its P99 TTFT is within {100 * NEAR:.0f} % of the best rival's in {len(near)} {of}"
    groups = dict.fromkeys(each.group for each in judged)
    for title, chosen in (
        ("all cases", judged),
        *((group, [each for each in judged if each.group == group]) for group in groups),
    ):
        yield f"mean normalized latency, {title}, geometric mean over {len(chosen)}, won-lost:"
        for rival in dict.fromkeys(rival for each in chosen for rival in each.rivals):
            yield f"  against {rival:22s} {_over_cases(chosen, rival, 'all')}"
    yield "by length class, mean normalized latency, all cases:"
    for rival in dict.fromkeys(rival for each in judged for rival in each.rivals):
        for name in sorted({name for each in judged for name in each.classes}, key=_class_order):
            yield f"  against {rival:22s} {name:12s} {_over_cases(judged, rival, name)}"


def _ahead(found: Outcome) -> list[str]:
    return [rival for rival in found.rivals if found.changes[rival, HEADLINE, "all"].verdict == "worse"]


def _over_cases(outcomes: Sequence[Outcome], rival: str, length_class: str) -> str:
    changes = [each.changes[rival, HEADLINE, length_class] for each in outcomes
               if (rival, HEADLINE, length_class) in each.changes]  # fmt: skip
    changes = [change for change in changes if not math.isnan(change.change)]
    if not changes:
        return "–"
    ratios = np.array([1 + change.change for change in changes])
    won, lost = (sum(change.verdict == verdict for change in changes) for verdict in ("better", "worse"))
    return f"{in_words(paired_by_seed(ratios, np.ones(len(ratios)))):>18s}   {won}-{lost} of {len(changes)}"


def _class_order(name: str) -> tuple[bool, bool, int]:
    digits = "".join(filter(str.isdigit, name.partition(" to ")[0]))
    return name.startswith("above"), not name.startswith("below"), int(digits)
