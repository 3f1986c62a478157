"""Traces made from traces: with other arrivals, or fewer rows. ``after`` still names the right rows in each."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from l4sim.errors import InputError
from l4sim.workload.trace import FloatArray, IntArray, PrefixBlocks, Trace

NEEDS_RATE = "the file has no arrival times: all requests (of sessions: the first) arrive at 0, give a rate with --rate"
"""The warning of traces that hold lengths alone; `with_poisson_arrivals` and `with_concurrency` remove it."""


def with_poisson_arrivals(trace: Trace, rate_per_s: float, seed: int) -> Trace:
    """The same requests in the same order, the open-loop ones arriving as a Poisson process that starts at 0.

    ``rate_per_s`` counts open-loop arrivals: requests without sessions, and the first turns of closed-loop sessions,
    whose later turns keep their delays. Raises `InputError` unless the rate is positive.
    """
    _check_positive(rate_per_s, "the rate", "requests per second")
    _check_timed(trace, "a rate")
    arrival_s = trace.arrival_s.copy()
    is_open = trace.after < 0
    gaps_s = np.random.default_rng(seed).exponential(1.0 / rate_per_s, int(is_open.sum()))
    arrival_s[is_open] = np.cumsum(gaps_s) - gaps_s[:1]
    return replace(trace, arrival_s=arrival_s, warnings=_timed_warnings(trace))


def with_concurrency(trace: Trace, concurrency: int) -> Trace:
    """The same requests in the same order as a closed loop: so many at a time, the next sent when one ends.

    A session takes one place from its first turn to its last one's end, delays included. This is what
    ``vllm bench serve --max-concurrency`` does at an infinite rate, and AIPerf at a ``--concurrency``. Raises
    `InputError` unless it is at least one.
    """
    if concurrency < 1:
        raise InputError(f"the concurrency must be at least 1 request, not {concurrency}")
    arrival_s = np.where(trace.after < 0, 0.0, np.nan)
    return replace(trace, arrival_s=arrival_s, concurrency=concurrency, warnings=_timed_warnings(trace))


def _timed_warnings(trace: Trace) -> tuple[str, ...]:
    """The warnings that hold once it is known when requests arrive."""
    return tuple(warning for warning in trace.warnings if warning != NEEDS_RATE)


def with_rate(trace: Trace, rate_per_s: float, seed: int) -> Trace:
    """The trace with ``rate_per_s`` open-loop arrivals per second on average.

    Arrivals that the trace has are stretched and keep their pattern; where all are at 0 they become Poisson. Raises
    `InputError` unless the rate is positive.
    """
    open_s = trace.arrival_s[trace.after < 0]
    duration_s = float(open_s[-1] - open_s[0])
    if duration_s == 0:
        return with_poisson_arrivals(trace, rate_per_s, seed)
    _check_positive(rate_per_s, "the rate", "requests per second")
    return scale_rate(trace, rate_per_s * duration_s / (len(open_s) - 1))


def scale_rate(trace: Trace, factor: float) -> Trace:
    """The trace with arrivals ``factor`` times as frequent; the delays of closed-loop turns stay as they are.

    Raises `InputError` unless the factor is positive.
    """
    _check_positive(factor, "the rate scale", "a factor")
    _check_timed(trace, "a rate scale")
    return replace(trace, arrival_s=trace.arrival_s / factor)


def dejitter(trace: Trace, tick_s: float, seed: int) -> Trace:
    """The trace with every open-loop arrival moved uniformly within the ``tick_s`` seconds that follow its time stamp.

    For traces whose clock ticks coarsely, which makes arrivals look burstier than they were (Mooncake's: 3 s). Raises
    `InputError` unless the tick is positive.
    """
    _check_positive(tick_s, "the tick", "seconds")
    arrival_s = trace.arrival_s + np.random.default_rng(seed).uniform(0.0, tick_s, len(trace))
    first_s = float(np.nanmin(arrival_s)) if len(trace) else 0.0
    moved = replace(trace, arrival_s=arrival_s - first_s)
    return take(moved, np.argsort(chain_arrival_s(moved), kind="stable"))


def pace(
    trace: Trace,
    *,
    rate_per_s: float | None = None,
    rate_scale: float | None = None,
    concurrency: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
) -> Trace:
    """The trace at a given rate, a multiple of its own, or a concurrency, cut to ``duration_s``.

    See `with_rate`, `scale_rate` and `with_concurrency`. Raises `InputError` if two of the three are given, a duration
    beside a concurrency, or a value is out of range.
    """
    if rate_per_s is not None and rate_scale is not None:
        raise InputError("a rate and a rate scale exclude one another")
    if concurrency is not None:
        trace = with_concurrency(trace, concurrency)
    if rate_per_s is not None:
        trace = with_rate(trace, rate_per_s, seed)
    if rate_scale is not None:
        trace = scale_rate(trace, rate_scale)
    return trace if duration_s is None else within(trace, duration_s)


def head(trace: Trace, rows: int) -> Trace:
    """The first ``rows`` requests. Raises `InputError` unless that is at least one."""
    if rows < 1:
        raise InputError(f"the limit must be at least 1 request, not {rows}")
    return take(trace, np.arange(min(rows, len(trace))))


def within(trace: Trace, duration_s: float) -> Trace:
    """The requests that arrive before ``duration_s``; a closed-loop session is kept whole if its first turn does.

    When later turns arrive is not known before they are simulated. Raises `InputError` unless the duration is positive
    and some request arrives in it.
    """
    _check_positive(duration_s, "the duration", "seconds")
    _check_timed(trace, "a duration")
    rows = np.flatnonzero(chain_arrival_s(trace) < duration_s)
    if not len(rows):
        raise InputError(f"{trace.name}: no request arrives in the first {duration_s:g} s")
    return take(trace, rows)


def chain_arrival_s(trace: Trace) -> FloatArray:
    """Per row, when the request arrives that its chain of ``after`` links begins with, seconds; shape ``[n]``."""
    arrival_s = trace.arrival_s.copy()
    for row in np.flatnonzero(trace.after >= 0).tolist():
        arrival_s[row] = arrival_s[trace.after[row]]
    return arrival_s


def take(trace: Trace, rows: IntArray) -> Trace:
    """Some rows of a trace, in the given order. A row must come after the one that its ``after`` names."""
    if len(rows) == len(trace) and np.array_equal(rows, np.arange(len(trace))):
        return trace
    place = np.full(len(trace) + 1, -1, dtype=np.int64)  # the last entry keeps -1 for "follows none"
    place[rows] = np.arange(len(rows))
    return replace(
        trace,
        request_id=tuple(trace.request_id[row] for row in rows.tolist()),
        arrival_s=trace.arrival_s[rows],
        prompt_tokens=trace.prompt_tokens[rows],
        output_tokens=trace.output_tokens[rows],
        session=trace.session[rows],
        after=place[trace.after[rows]],
        delay_s=trace.delay_s[rows],
        prefix=None if trace.prefix is None else _take_prefix(trace.prefix, rows),
        priority=None if trace.priority is None else trace.priority[rows],
    )


def _take_prefix(prefix: PrefixBlocks, rows: IntArray) -> PrefixBlocks:
    counts = np.diff(prefix.offsets)[rows]
    offsets = np.concatenate(([0], np.cumsum(counts)))
    # Position of every kept id in the old array: its row's old start plus its place within the row.
    source = np.arange(offsets[-1]) + np.repeat(prefix.offsets[rows] - offsets[:-1], counts)
    ends = None if prefix.ends is None else prefix.ends[source]
    return PrefixBlocks(prefix.ids[source], offsets, prefix.block_tokens, ends)


def _check_timed(trace: Trace, what: str) -> None:
    if trace.concurrency is not None:
        raise InputError(
            f"{what} and a concurrency exclude one another: requests are sent when others end ({trace.concurrency} at "
            "a time); --limit says how many"
        )


def _check_positive(value: float, name: str, unit: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a positive number ({unit}), not {value}")
