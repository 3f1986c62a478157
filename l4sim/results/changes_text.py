"""A comparison in words: verdict, changes with their intervals, who loses, and what to know before believing them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from l4sim.results.changes import HEADLINE, LOSS, METRICS, Change, Comparison, PolicyChange
from l4sim.results.numbers import change as relative

if TYPE_CHECKING:
    from rich.table import Table

# Differences below this share count as none: breaking ties between equally loaded instances another way moves the
# mean of a trace of some thousand requests by as much.
NOISE = 0.02

# A run whose makespan is under so many P99 E2E latencies is mostly its beginning and its end (ours).
SHORT_RUN = 3
# Fewer requests beyond a percentile leave it uncertain by a tenth and more (ours).
BEYOND_P99 = 100

_P99_E2E = next(metric for metric in METRICS if (metric.name, metric.statistic) == ("e2e_s", "p99"))
# Where an interval is so wide its halves differ, and both ends are told.
_WIDE = 0.5


def in_words(change: Change) -> str:
    """A change with its interval: ``-5.8 ± 5.2 %``; ``+80 % (+10 to +194 %)`` where that is wide; ``-5.8 %`` alone
    where there is none.
    """
    if change.half != change.half:
        return relative(1 + change.change, 1)
    if change.half > _WIDE:
        return f"{100 * change.change:+.0f} % ({100 * change.low:+.0f} to {100 * change.high:+.0f} %)"
    decimals = 1 if change.half < 0.0995 else 0
    return f"{100 * change.change:+.{decimals}f} ± {100 * change.half:.{decimals}f} %"


def verdict(comparison: Comparison | None) -> str:
    """The outcome of a comparison in one line, by mean normalized latency.

    If ``l4`` is among the policies, it is compared with the best of its rivals; else the best policy with the first
    (`l4sim.results.changes.compare_runs`). The line says where it cannot be told, and ends with a caveat if the
    policies finished different requests.
    """
    if comparison is None:
        return "Nothing to compare: fewer than two policies finished requests."
    line = _l4_line(comparison) if comparison.against_best_rival else _best_line(comparison)
    return line if comparison.same_requests else f"{line} But the policies finished different requests."


def who_loses(comparison: Comparison) -> list[str]:
    """A line per length class that the headline policy serves worse than a rival does by more than 5 %; one if none."""
    policy = comparison.headline
    if not comparison.losers:
        return [f"No length class is more than {100 * LOSS:.0f} % slower under {policy} than under another policy."]
    return [f"Who loses: {_loss(each)}." for each in comparison.losers]


def cautions(summaries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line if P99s rest on few requests, and one if the runs are short beside their slowest requests."""
    finished = [summary for summary in summaries if summary["requests"]["finished"]]
    fewest = min((summary["requests"]["finished"] for summary in finished), default=0)
    if 0 < fewest < 100 * BEYOND_P99:
        yield f"P99s rest on the slowest {max(1, fewest // 100):,} of {fewest:,} requests: other runs would move them."
    short = [
        str(summary["policy"]) for summary in finished if summary["makespan_s"] < SHORT_RUN * summary["e2e_s"]["p99"]
    ]
    if short:
        yield (
            f"The run takes less than {SHORT_RUN} times its P99 E2E under {', '.join(short)}: a longer trace "
            "would give other figures."
        )


def changes_table(comparison: Comparison) -> Table:
    """Every policy's changes in percent against the one that all are held against, with 95 % intervals."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(caption=basis(comparison), caption_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column(f"\nagainst\n{escape(comparison.against)} (%)", no_wrap=True)
    for header in _HEADERS:
        table.add_column(header, justify="right", no_wrap=True)
    for policy in dict.fromkeys(each.policy for each in comparison.changes):
        cells = (_cell(comparison.change(policy, metric)) for metric in METRICS)
        table.add_row("\n".join(wrap(escape(policy), 14)), *cells)
    return table


def basis(comparison: Comparison) -> str:
    """What the intervals rest on, in a line."""
    blocks, length = comparison.blocks, comparison.block_requests
    return (
        f"±: 95 % interval, paired by request ({comparison.requests:,} requests in {blocks:,} blocks of {length:,}); "
        "?: cannot tell"
    )


def short(change: Change) -> str:
    """A change in percent as a table's cell has it: ``-5.8±5.2``, ``+1.2±5.2?``, ``+1.2?``; a dash for none."""
    if change.change != change.change:
        return "–"
    unsure = "?" if change.verdict == "cannot tell" else ""
    percent = 100 * change.change
    if change.half != change.half:
        return f"{percent:+.{0 if abs(percent) >= 9.95 else 1}f}{unsure}"
    decimals = 1 if change.half < 0.0995 else 0
    return f"{percent:+.{decimals}f}±{100 * change.half:.{decimals}f}{unsure}"


_HEADERS = ("norm.\nmean\n", "TTFT\nmean\n", "TTFT\nP99\n", "E2E\nP99\n", "output\ntokens\n/s")
_STYLES = {"better": "green", "worse": "red", "cannot tell": "default"}


def _cell(change: Change) -> str:
    return f"[{_STYLES[change.verdict]}]{short(change)}[/]"


def _loss(each: PolicyChange) -> str:
    unsure = f" ({each.change.why or each.change.verdict})" if each.change.verdict == "cannot tell" else ""
    return (
        f"{each.requests:,} requests of {each.length_class} tokens, {HEADLINE.words} under {each.policy} "
        f"{in_words(each.change)} against {each.against}{unsure}"
    )


def _l4_line(comparison: Comparison) -> str:
    change = comparison.change(comparison.headline)
    against = f"against the best other policy ({comparison.against})"
    p99 = f"P99 E2E {in_words(comparison.change(comparison.headline, _P99_E2E))}"
    if _open(change):
        return f"Cannot tell whether l4 pays here: mean normalized latency {in_words(change)} {against}, {p99}."
    if change.change < -NOISE:
        line = f"l4 lowers mean normalized latency by {_amount(change)} {against}, {p99}."
    elif change.change > NOISE:
        line = f"l4 does not pay here: it raises mean normalized latency by {_amount(change)} {against}, {p99}."
    else:
        line = f"l4 does not pay here: mean normalized latency is within {NOISE:.1%} {against}, {p99}."
    return line + _why(change)


def _best_line(comparison: Comparison) -> str:
    first, best = comparison.against, comparison.headline
    none = f"No policy lowers mean normalized latency against {first} by more than {NOISE:.1%}."
    if best == first:
        return none
    change = comparison.change(best)
    p99 = f"P99 E2E {in_words(comparison.change(best, _P99_E2E))}"
    if _open(change):
        return f"Cannot tell whether a policy is better than {first}: {best} {in_words(change)}, {p99}."
    if change.change > -NOISE:
        return none + _why(change)
    lowered = f"{best} lowers mean normalized latency the most"
    return f"{lowered}: by {_amount(change)} against {first}, {p99}.{_why(change)}"


def _open(change: Change) -> bool:
    """Whether there is an interval, and it holds both a gain and a loss, or one that counts and none."""
    return change.low < 0 < change.high and max(-change.low, change.high) > NOISE


def _why(change: Change) -> str:
    return f" {change.why[0].upper()}{change.why[1:]}." if change.why else ""


def _amount(change: Change) -> str:
    return in_words(change).lstrip("+-")
