"""Statistics of a trace, and what about it would mislead a simulation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from l4sim.workload.prefix_runs import ends_of, starts_of
from l4sim.workload.trace import FloatArray, IntArray, PrefixBlocks, Trace
from l4sim.workload.transform import NEEDS_RATE

PERCENTILES = (1, 10, 50, 90, 95, 99)
LONG_TOKENS = {"32K": 32_768, "64K": 65_536, "128K": 131_072}
FANO_WINDOWS_S = (1, 10, 60)
MIN_WINDOWS = 10
"""Fewer windows than this say nothing about the variance of counts (ours)."""
COARSE_CLOCK_SHARE = 0.2
"""From this share of requests with the very time stamp of the one before, the clock is called coarse (ours)."""
REPEATED_SHARE = 0.5
"""From this share of prompt tokens seen before, replaying without a prefix cache is called misleading (ours)."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the requests of a trace are, in tokens."""

    percentiles: Mapping[str, float]
    """``p1`` to ``p99`` and ``max``."""
    mean: float
    lognormal_mu: float
    """Mean and standard deviation of the natural logarithm."""
    lognormal_sigma: float


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """Statistics of a trace; None for a figure that the trace does not determine."""

    name: str
    requests: int
    duration_s: float
    """From the first open-loop arrival to the last."""
    rate_per_s: float | None
    """Open-loop arrivals after the first, per second of duration."""
    cv_interarrival: float | None
    """Coefficient of variation of the gaps between open-loop arrivals; 1 for a Poisson process."""
    fano: Mapping[str, float | None]
    """Variance over mean of open-loop arrivals per window of ``1s``, ``10s``, ``60s``; 1 for a Poisson process."""
    prompt_tokens: Lengths
    output_tokens: Lengths
    total_tokens: Lengths
    long_token_share: Mapping[str, float]
    """Share of all tokens that lie in requests longer (prompt and output) than ``32K``, ``64K``, ``128K``."""
    long_request_share: Mapping[str, float]
    spearman_prompt_output: float | None
    """Rank correlation of prompt and output tokens."""
    prefix_reuse: float | None
    """Share of prompt tokens that an infinite prefix cache would have held, rows taken in order."""
    sessions: int
    closed_loop_requests: int
    concurrency: int | None
    """Requests, or sessions, at a time, where they are sent as others end."""
    warnings: tuple[str, ...]
    """What the loader changed or guessed."""
    traps: tuple[str, ...]
    """What would mislead a simulation of this trace, and what to do about it."""

    def to_dict(self) -> dict[str, Any]:
        """The statistics as JSON-ready values."""
        return dataclasses.asdict(self)


def describe(trace: Trace) -> TraceStatistics:
    """The statistics of ``trace``, which must hold at least one request."""
    open_s = np.sort(trace.arrival_s[trace.after < 0])
    gaps_s = np.diff(open_s)
    duration_s = float(open_s[-1] - open_s[0])
    # No clock tells apart what is closer than a nanosecond; such a trace has no rate.
    timed = duration_s > 1e-9
    total_tokens = trace.prompt_tokens + trace.output_tokens
    reuse = (
        None
        if trace.prefix is None
        else float(reused_tokens(trace.prompt_tokens, trace.prefix).sum() / trace.prompt_tokens.sum())
    )
    longer = {name: total_tokens > limit for name, limit in LONG_TOKENS.items()}
    return TraceStatistics(
        name=trace.name,
        requests=len(trace),
        duration_s=duration_s,
        rate_per_s=len(gaps_s) / duration_s if timed else None,
        cv_interarrival=float(gaps_s.std() / gaps_s.mean()) if timed else None,
        fano={f"{window_s}s": _fano(open_s, window_s) for window_s in FANO_WINDOWS_S},
        prompt_tokens=_lengths(trace.prompt_tokens),
        output_tokens=_lengths(trace.output_tokens),
        total_tokens=_lengths(total_tokens),
        long_token_share={name: float(total_tokens[rows].sum() / total_tokens.sum()) for name, rows in longer.items()},
        long_request_share={name: float(rows.mean()) for name, rows in longer.items()},
        spearman_prompt_output=_spearman(trace.prompt_tokens, trace.output_tokens),
        prefix_reuse=reuse,
        sessions=len(np.unique(trace.session[trace.session >= 0])),
        closed_loop_requests=int((trace.after >= 0).sum()),
        concurrency=trace.concurrency,
        warnings=trace.warnings,
        traps=_traps(trace, gaps_s, reuse),
    )


def reused_tokens(prompt_tokens: IntArray, prefix: PrefixBlocks) -> IntArray:
    """Per row, the leading prompt tokens that an earlier row, its answer included, already had; shape ``[n]``."""
    ids, offsets, ends = prefix.ids, prefix.offsets, ends_of(prefix, prompt_tokens)
    if not len(ids):
        return np.zeros(len(prompt_tokens), dtype=np.int64)
    # How far earlier rows went in each block: the greatest end before this one's, block by block.
    order = np.argsort(ids, kind="stable")
    span = int(ends.max()) + 1
    new = np.concatenate(([True], np.diff(ids[order]) != 0))
    number = np.cumsum(new)
    furthest = np.maximum.accumulate(number * span + ends[order])
    before = np.where(new, 0, np.concatenate(([0], furthest[:-1])) - number * span)
    seen = np.empty(len(ids), dtype=np.int64)
    seen[order] = before
    # A row's hits end in its first block that is not known to its end.
    known = np.minimum(np.maximum(seen, starts_of(offsets, ends)), ends)
    first_new = np.append(np.flatnonzero(seen < ends), len(ids))
    at = first_new[np.searchsorted(first_new, offsets[:-1])]
    last = offsets[1:] - 1
    hits = np.where(np.diff(offsets) > 0, known[np.minimum(at, np.maximum(last, 0))], 0)
    reused: IntArray = np.minimum(hits, prompt_tokens)
    return reused


def _lengths(tokens: IntArray) -> Lengths:
    values = np.percentile(tokens, PERCENTILES)
    percentiles = {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, values, strict=True)}
    logarithms = np.log(tokens)
    return Lengths(
        percentiles | {"max": float(tokens.max())},
        float(tokens.mean()),
        float(logarithms.mean()),
        float(logarithms.std()),
    )


def _fano(open_s: FloatArray, window_s: int) -> float | None:
    since_s = open_s - open_s[0]
    windows = math.floor(since_s[-1] / window_s)
    if windows < MIN_WINDOWS:
        return None
    # The last, incomplete window would count too few. Empty windows are not listed: a trace may span years of them.
    window = np.floor(since_s / window_s)
    counts = np.unique(window[window < windows], return_counts=True)[1]
    mean = counts.sum() / windows
    return float(((counts**2).sum() / windows - mean**2) / mean)


def _spearman(prompt_tokens: IntArray, output_tokens: IntArray) -> float | None:
    if np.ptp(prompt_tokens) == 0 or np.ptp(output_tokens) == 0:
        return None
    from scipy import stats

    return float(stats.spearmanr(prompt_tokens, output_tokens).statistic)


def _traps(trace: Trace, gaps_s: FloatArray, reuse: float | None) -> tuple[str, ...]:
    traps = []
    if trace.concurrency is None and len(gaps_s) and not gaps_s.any() and NEEDS_RATE not in trace.warnings:
        traps.append(f"all {len(gaps_s) + 1} open-loop requests arrive at once: give a rate with --rate")
    ticks_s = gaps_s[gaps_s > 0]
    same = len(gaps_s) - len(ticks_s)
    if len(ticks_s) and same / len(gaps_s) >= COARSE_CLOCK_SHARE:
        traps.append(
            f"{same} of {len(gaps_s)} arrivals have the time stamp of the one before: the clock is coarse and arrivals "
            f"look burstier than they were; spread them with --dejitter {np.median(ticks_s):.3g}"
        )
    if reuse is not None and reuse >= REPEATED_SHARE:
        excess = f"{1 / (1 - reuse):.3g} times too much" if reuse < 1 else "nothing but repetition"
        traps.append(
            f"{reuse:.1%} of prompt tokens repeat a prefix seen before: "
            f"without prefix caching the prefill load is {excess}"
        )
    return tuple(traps)
