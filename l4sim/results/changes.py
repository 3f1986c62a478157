"""How much better or worse policies are than another one, how sure that is, and which requests lose.

A change is relative, with a 95 % interval. Within one run it is *paired by request*: all policies serve the same
requests, so that what a request is does not count, only what became of it (`l4sim.results.bootstrap` draws blocks of
consecutive arrivals). Over several runs it is *paired by seed*. Both reckon with logarithms of ratios, and with
Student's t, which minds how few blocks or seeds there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from l4sim.results.bootstrap import FloatArray, IntArray, Resamples, block_length
from l4sim.results.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame

CONFIDENCE = 0.95

# With fewer independent blocks an interval would rest on a handful of queues (ours).
FEWEST_BLOCKS = 6
# Longer blocks than are needed cost little certainty where there are so many, and save time (ours).
_MOST_BLOCKS = 250
# Fewer values beyond a percentile than this, and it is that of a few single requests (ours).
FEWEST_BEYOND = 10

# A length class that gets slower by more than this is told (ours).
LOSS = 0.05

# Rounding alone.
_SAME = 1e-9

CLASS_EDGES_TOKENS = (1024, 4096, 16384, 32768, 65536)
"""Requests are classed by their context at the end, prompt and output: below the first edge, up to above the last."""


class Metric(NamedTuple):
    """A figure that policies are held against one another by."""

    name: str
    """As in ``summary.json``."""
    statistic: str
    """``mean`` or ``p99`` over requests; ``rate`` per second over the run."""
    words: str
    higher_is_better: bool = False


METRICS = (
    Metric("normalized_latency_s", "mean", "mean normalized latency"),
    Metric("ttft_s", "mean", "mean TTFT"),
    Metric("ttft_s", "p99", "P99 TTFT"),
    Metric("e2e_s", "p99", "P99 E2E"),
    Metric("throughput_tokens_per_s", "rate", "throughput", higher_is_better=True),
)
HEADLINE = METRICS[0]


@dataclass(frozen=True, slots=True)
class Change:
    """A relative change, -0.1 for 10 % less, and how sure it is."""

    change: float
    """NaN where there is nothing to compare."""
    low: float
    """The interval's lower end; NaN, as ``high``, where there is none."""
    high: float
    verdict: str
    """``better``, ``worse`` or ``cannot tell``."""
    why: str = ""
    """Why there is no interval; else empty."""

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """The change of one figure under one policy against that under another."""

    policy: str
    against: str
    metric: str
    statistic: str
    length_class: str
    """``all``, or the lengths in tokens: ``below 1K``, ``1K to 4K``, …"""
    requests: int
    """That count: those that finished under every policy."""
    change: Change

    def as_row(self) -> dict[str, Any]:
        """Its fields and those of the change, as one flat mapping."""
        row = asdict(self)
        return {**row, **row.pop("change")}


@dataclass(frozen=True)
class Comparison:
    """The policies of one run held against one of them."""

    headline: str
    """The policy that is judged: ``l4``, or the best one."""
    against: str
    """Of its rivals the best by mean normalized latency; without ``l4`` the first policy."""
    against_best_rival: bool
    """Whether that is what it is."""
    same_requests: bool
    """Whether all policies finished the same requests."""
    requests: int
    """That finished under every policy."""
    block_requests: int
    """Consecutive requests that were drawn together."""
    blocks: int
    changes: tuple[PolicyChange, ...]
    """Of every policy against that one, by metric and length class."""
    losers: tuple[PolicyChange, ...]
    """Length classes that the headline policy serves worse than a rival does by more than `LOSS`, each against the
    rival that serves it best."""

    def change(self, policy: str, metric: Metric = HEADLINE, length_class: str = "all") -> Change:
        """One of the changes. Raises KeyError if there is no such one."""
        for each in self.changes:
            if (each.policy, each.metric, each.statistic) == (policy, *metric[:2]) and (
                each.length_class == length_class
            ):
                return each.change
        raise KeyError((policy, metric.words, length_class))

    def as_json(self) -> dict[str, Any]:
        """What ``summary.json`` has of it."""
        return {
            "headline": self.headline,
            "against": self.against,
            "confidence": CONFIDENCE,
            "paired_by": "request",
            "requests": self.requests,
            "block_requests": self.block_requests,
            "blocks": self.blocks,
            "changes": [each.as_row() for each in self.changes],
            "losers": [each.as_row() for each in self.losers],
        }


def compare_runs(runs: Sequence[Run]) -> Comparison | None:
    """Hold the policies of one run against one another; None if fewer than two of them finished a request.

    If ``l4`` is among them it is the headline, and all are held against the best of its rivals, which neither its own
    variants (kind ``l4``) nor oracles are. Else the best policy is the headline, and all are held against the first.
    """
    ran = [run for run in runs if (run.requests["status"] == "finished").any()]
    if len(ran) < 2:
        return None
    mean_s = {run.policy: float(run.requests["normalized_latency_s"].mean()) for run in ran}
    rivals = [run.policy for run in ran if run.kind not in ("l4", "oracle")]
    judges_l4 = "l4" in mean_s and bool(rivals)
    if judges_l4:
        headline, against = "l4", min(rivals, key=mean_s.__getitem__)
    else:
        headline, against = min(mean_s, key=mean_s.__getitem__), ran[0].policy
    paired = PairedRuns(ran, against)
    others = [run.policy for run in ran if run.policy != against]
    return Comparison(
        headline,
        against,
        judges_l4,
        all(len(paired.rows) == (run.requests["status"] == "finished").sum() for run in runs),
        len(paired.rows),
        paired.draws.block,
        paired.draws.blocks,
        tuple(each for policy in others for each in paired.changes(policy, against)),
        tuple(_losers(paired, headline, [name for name in rivals if name != headline])),
    )


def paired_by_seed(values: FloatArray, base: FloatArray, *, higher_is_better: bool = False) -> Change:
    """The change of a figure over several runs, each against the run of the same seed; both of shape ``[seeds]``.

    The geometric mean of the ratios, with Student's interval of their logarithms. Source: Student (1908); seeds are
    independent, and logarithms of ratios taken as normal.
    """
    ratios = np.log(np.asarray(values, dtype=np.float64) / np.asarray(base, dtype=np.float64))
    seeds = len(ratios)
    if seeds < 2:
        return change_of(float(ratios.mean()), math.nan, 0, higher_is_better, f"too few to tell: {seeds} seed")
    standard_error = float(ratios.std(ddof=1)) / math.sqrt(seeds)
    return change_of(float(ratios.mean()), standard_error, seeds - 1, higher_is_better)


def change_of(log_ratio: float, standard_error: float, freedom: int, higher_is_better: bool, why: str = "") -> Change:
    """A change from the logarithm of a ratio, its standard error and the degrees of freedom of that.

    ``why`` there can be no interval; it then has none.
    """
    from scipy.special import stdtrit

    if why or math.isnan(log_ratio) or math.isnan(standard_error):
        return Change(math.expm1(log_ratio), math.nan, math.nan, "cannot tell", why or "nothing to compare")
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * standard_error
    low, high = math.expm1(log_ratio - half), math.expm1(log_ratio + half)
    if abs(log_ratio) < _SAME:
        return Change(0.0, low, high, "cannot tell")
    lower = "worse" if higher_is_better else "better"
    upper = "better" if higher_is_better else "worse"
    return Change(math.expm1(log_ratio), low, high, lower if high < 0 else upper if low > 0 else "cannot tell")


def length_classes(length_tokens: IntArray) -> dict[str, IntArray]:
    """The rows of each length class that has any, from the shortest; shape ``[n]``, tokens."""
    number = np.searchsorted(CLASS_EDGES_TOKENS, length_tokens, side="right")
    names = _class_names()
    return {names[each]: np.flatnonzero(number == each) for each in np.unique(number).tolist()}


def _class_names() -> list[str]:
    short = [f"{edge // 1024}K" for edge in CLASS_EDGES_TOKENS]
    between = [f"{lower} to {upper}" for lower, upper in pairwise(short)]
    return [f"below {short[0]}", *between, f"above {short[-1]}"]


def _losers(paired: PairedRuns, headline: str, rivals: Sequence[str]) -> Iterator[PolicyChange]:
    for name in paired.classes:
        found = [paired.change(headline, rival, HEADLINE, name) for rival in rivals]
        worst = max(found, key=lambda each: each.change.change, default=None)
        if worst is not None and worst.change.change > LOSS:
            yield worst


class PairedRuns:
    """The requests that finished under every policy, in order of arrival, with all policies' latencies."""

    def __init__(self, runs: Sequence[Run], against: str) -> None:
        self._names = [run.policy for run in runs]
        base = runs[self._names.index(against)].requests
        finished = np.logical_and.reduce([(run.requests["status"] == "finished").to_numpy() for run in runs])
        kept = np.flatnonzero(finished)
        self.rows = kept[np.argsort(base["arrival_s"].to_numpy()[kept], kind="stable")]
        self._latencies = {
            (run.policy, name): run.requests[name].to_numpy(dtype=np.float64)[self.rows]
            for run in runs
            for name in dict.fromkeys(metric.name for metric in METRICS if metric.statistic != "rate")
        }
        self._finishes = {run.policy: _finishes(run) for run in runs}
        self.length_tokens = (base["prompt_tokens"] + base["output_tokens"]).to_numpy()[self.rows]
        self.classes = length_classes(self.length_tokens)
        self._served_together = _served_together(base)
        self._against = against

    @cached_property
    def draws(self) -> Resamples:
        """Draws of the requests, the same ones for every policy, figure and class."""
        count = max(1, len(self.rows))
        block = max(
            self._served_together,
            *(self._block_length(name, self._against) for name in self._names if name != self._against),
            math.ceil(count / _MOST_BLOCKS),
        )
        return Resamples(count, min(count, block))

    def _block_length(self, policy: str, against: str) -> int:
        """The longest that a difference of means asks for."""
        lengths = [1]
        for metric in METRICS:
            if metric.statistic == "mean":
                own, other = self._latencies[policy, metric.name], self._latencies[against, metric.name]
                if len(own) and own.mean() > 0 and other.mean() > 0:
                    lengths.append(block_length(own / own.mean() - other / other.mean()))
        return max(lengths)

    def changes(self, policy: str, against: str) -> Iterator[PolicyChange]:
        """Of one policy against another, by metric and length class."""
        for metric in METRICS:
            yield self.change(policy, against, metric, "all")
            if metric.statistic != "rate" and len(self.classes) > 1:
                for name in self.classes:
                    yield self.change(policy, against, metric, name)

    def change(self, policy: str, against: str, metric: Metric, length_class: str) -> PolicyChange:
        """Of one figure; a rate counts all requests of each policy."""
        rows = len(self._among(length_class))
        with np.errstate(divide="ignore", invalid="ignore"):
            own, other = (np.log(self.value(name, metric, length_class)) for name in (policy, against))
            log_ratio = float(own - other)
        units = min(self.draws.blocks, rows)
        why = self._too_few(metric, rows, units)
        error = math.nan if why else self._standard_error(policy, against, metric, length_class, units)
        found = change_of(log_ratio, error, units - 1, metric.higher_is_better, why)
        return PolicyChange(policy, against, metric.name, metric.statistic, length_class, rows, found)

    def _standard_error(self, policy: str, against: str, metric: Metric, length_class: str, units: int) -> float:
        """Of the logarithm of the ratio."""
        with np.errstate(divide="ignore", invalid="ignore"):
            own, other = (np.log(self._drawn(name, metric, length_class)) for name in (policy, against))
            drawn = own - other
        drawn = drawn[np.isfinite(drawn)]
        # Draws vary about the run's own mean, as the blocks do: one degree of freedom less.
        return float(drawn.std()) * math.sqrt(units / (units - 1)) if len(drawn) else math.nan

    def _too_few(self, metric: Metric, rows: int, units: int) -> str:
        counted = f"{rows:,} request" + ("" if rows == 1 else "s")
        if self.draws.blocks < FEWEST_BLOCKS:
            return f"too short to tell: {counted}"
        if units < FEWEST_BLOCKS or (metric.statistic == "p99" and rows < 100 * FEWEST_BEYOND):
            return f"too few to tell: {counted}"
        return ""

    def value(self, policy: str, metric: Metric, length_class: str) -> float:
        """A figure as it is; NaN if it is of no request."""
        if metric.statistic == "rate":
            seconds, tokens = self._finishes[policy]
            return float(tokens.sum() / seconds.max()) if len(seconds) else math.nan
        values = self._latencies[policy, metric.name][self._among(length_class)]
        if not len(values):
            return math.nan
        return float(np.percentile(values, 99) if metric.statistic == "p99" else values.mean())

    def _among(self, length_class: str) -> IntArray:
        return np.arange(len(self.rows)) if length_class == "all" else self.classes[length_class]

    def _drawn(self, policy: str, metric: Metric, length_class: str) -> FloatArray:
        """A figure of each draw; shape ``[draws]``."""
        if metric.statistic == "rate":
            return self._drawn_rates[policy]
        among, column = self._among(length_class), ("all", *self.classes).index(length_class)
        if metric.statistic == "mean":
            return self._drawn_means[policy, metric.name][:, column]
        values = self._latencies[policy, metric.name]
        return self.draws.upper_quantiles(values, 0.01, among, self._drawn_counts[:, column])

    @cached_property
    def _member(self) -> FloatArray:
        """Which requests count for ``all``, and for each class; shape ``[requests, 1 + classes]``."""
        member = np.zeros((len(self.rows), 1 + len(self.classes)))
        member[:, 0] = 1.0
        for column, rows in enumerate(self.classes.values(), 1):
            member[rows, column] = 1.0
        return member

    @cached_property
    def _drawn_counts(self) -> FloatArray:
        """How many requests each draw has of ``all`` and of each class; shape ``[draws, 1 + classes]``."""
        return self.draws.sums(self._member)

    @cached_property
    def _drawn_means(self) -> dict[tuple[str, str], FloatArray]:
        """By policy and latency, each draw's means, NaN without a request; shape ``[draws, 1 + classes]``."""
        counts = np.where(self._drawn_counts > 0, self._drawn_counts, math.nan)
        means = {metric.name for metric in METRICS if metric.statistic == "mean"}
        return {
            (policy, name): self.draws.sums(self._member * values[:, None]) / counts
            for (policy, name), values in self._latencies.items()
            if name in means
        }

    @cached_property
    def _drawn_rates(self) -> dict[str, FloatArray]:
        """Tokens per second of each policy; drawn are stretches of time, each with the tokens that finished in it.

        The stretches are as many as there are blocks of requests, and the same for all policies. One that ended before
        has neither tokens nor seconds in those behind its end.
        """
        ends_s = {policy: float(seconds.max(initial=0.0)) for policy, (seconds, _) in self._finishes.items()}
        edges_s = np.linspace(0.0, max(ends_s.values()), self.draws.blocks + 1)
        stretches = Resamples(self.draws.blocks, 1)
        drawn = {}
        for policy, (seconds, tokens) in self._finishes.items():
            done, _ = np.histogram(seconds, edges_s, weights=tokens)
            sums = stretches.sums(np.column_stack([done, np.diff(np.minimum(edges_s, ends_s[policy]))]))
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn[policy] = sums[:, 0] / sums[:, 1]
        return drawn


def _served_together(requests: DataFrame) -> int:
    """Requests that are in the system at a time on average, by Little's law. [ours]

    They share queues and batches, so that a block holds at least as many.
    """
    arrival_s = requests["arrival_s"].to_numpy()
    span_s = float(np.nanmax(arrival_s) - np.nanmin(arrival_s))
    return math.ceil(float(requests["e2e_s"].sum()) / span_s) if span_s > 0 else len(requests)


def _finishes(run: Run) -> tuple[FloatArray, NDArray[np.int64]]:
    """When each request finished, from the first arrival in seconds, and its output tokens."""
    requests = run.requests
    end_s = (requests["arrival_s"] + requests["e2e_s"] - requests["arrival_s"].min()).to_numpy()
    finished = ~np.isnan(end_s)
    return end_s[finished], requests["output_tokens"].to_numpy()[finished]
