"""What a plan is made for: requests per second, by length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.errors import InputError
from l4sim.policies.l4.reuse import Reuse

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_WINDOWS = 32
_LONGEST_WINDOW_S = 60.0
"""Burstiness is measured over this many windows of the sample, or more of at most this length: changes slower than a
window are no bursts."""
_FEWEST_ARRIVALS = 10


@dataclass(frozen=True, slots=True)
class Demand:
    """Arrivals and decoding by context-length bucket; per-second figures, over the whole cluster.

    Shapes: ``edges_tokens`` ``[b + 1]``, ascending from 0; everything else ``[b]``, one value per bucket.
    """

    edges_tokens: IntArray
    arrivals_per_s: FloatArray
    """Requests whose prompt ends in the bucket."""
    prompt_tokens: FloatArray
    """Mean prompt of these requests."""
    new_prompt_tokens: FloatArray
    """Mean of what no earlier prompt had, which no prefix cache can hold."""
    arrival_weights: FloatArray
    """Per second, the sum over these requests of 1 / output tokens: what a second of TTFT adds to their normalized
    latency."""
    decode_tokens_per_s: FloatArray
    """Tokens decoded while the context is in the bucket: all of a request's but the first."""
    decode_context_tokens: FloatArray
    """Mean context of these tokens."""
    decode_weights: FloatArray
    """Per second, the sum over these tokens of 1 / output tokens of their request."""
    crossings_per_s: FloatArray
    """Requests that grow past the bucket's upper edge."""
    crossing_weights: FloatArray
    """Per second, the sum of 1 / output tokens over these requests."""
    dispersion: FloatArray
    """Variance over mean of the bucket's arrivals per ``window_s``: 1 for Poisson arrivals, more for bursts."""
    window_s: float = math.inf
    reuse: Reuse | None = None
    """How the prompt tokens that are not new come back; None if it is not known, and all of them are held."""

    @property
    def requests_per_s(self) -> float:
        """Arrivals per second over all buckets."""
        return float(self.arrivals_per_s.sum())


def geometric_edges(max_tokens: int, *, per_octave: int = 2, first_tokens: int = 128) -> IntArray:
    """Bucket edges 0, first, ..., ``max_tokens``: ``per_octave`` buckets for each doubling of the length.

    The paper compresses lengths into exponential buckets; how many is ours.
    """
    octaves = np.log2(max(max_tokens / first_tokens, 1.0))
    count = max(round(octaves * per_octave), 1)
    edges = np.unique(np.round(np.geomspace(min(first_tokens, max_tokens), max_tokens, count + 1)).astype(np.int64))
    return np.concatenate(([0], edges))


def measure_demand(
    prompt_tokens: IntArray,
    output_tokens: IntArray,
    rates_per_s: FloatArray,
    edges_tokens: IntArray,
    new_prompt_tokens: IntArray | None = None,
    *,
    arrival_s: FloatArray | None = None,
    reuse: Reuse | None = None,
    kv_tokens: int | None = None,
) -> Demand:
    """The demand of a sample of requests, each of which arrives at its own rate; shapes ``[n]``.

    ``new_prompt_tokens``: what of each prompt no earlier one had (default: all of it). ``arrival_s`` tells how they
    come in bursts (default: Poisson). Requests longer than the last edge, or than an instance's ``kv_tokens``, are left
    out: they will be rejected.

    Raises:
        InputError: no request is short enough, or the rates are not positive numbers.
    """
    if not (np.isfinite(rates_per_s).all() and rates_per_s.sum() > 0 and rates_per_s.min() >= 0):
        raise InputError(
            "a plan needs a positive arrival rate, and the sample has no duration: give a rate with --rate"
        )
    uncached_tokens = prompt_tokens if new_prompt_tokens is None else new_prompt_tokens
    longest = int(edges_tokens[-1]) if kv_tokens is None else min(int(edges_tokens[-1]), kv_tokens)
    fits = (prompt_tokens + output_tokens <= longest) & (rates_per_s > 0)
    if not fits.any():
        raise InputError(f"a plan needs requests of at most {longest} tokens that arrive, and the sample has none")
    prompt, new, output = (
        tokens[fits].astype(np.float64) for tokens in (prompt_tokens, uncached_tokens, output_tokens)
    )
    rates = rates_per_s[fits]
    weight = rates / output

    buckets = len(edges_tokens) - 1
    # The last edge belongs to the last bucket: a prompt may be as long as a context can be.
    own = np.minimum(np.searchsorted(edges_tokens, prompt, side="right") - 1, buckets - 1)
    arrivals = _sums(own, rates, buckets)
    some = np.maximum(arrivals, 1e-300)

    lo, hi = edges_tokens[:-1, None], edges_tokens[1:, None]
    # The first token comes from the prefill; the others decode, from one token of context more.
    start = np.maximum(prompt + 1, lo)
    end = np.minimum(prompt + output, hi)
    tokens = np.maximum(end - start, 0.0)
    generated = tokens @ rates
    middle = (tokens * (start + end) / 2) @ rates
    centre = (edges_tokens[:-1] + edges_tokens[1:]) / 2
    crossing = (prompt < hi) & (prompt + output > hi)
    return Demand(
        edges_tokens,
        arrivals,
        _sums(own, rates * prompt, buckets) / some,
        _sums(own, rates * new, buckets) / some,
        _sums(own, weight, buckets),
        generated,
        np.where(generated > 0, middle / np.maximum(generated, 1e-300), centre).astype(np.float64),
        tokens @ weight,
        crossing @ rates,
        crossing @ weight,
        *_dispersion(None if arrival_s is None else arrival_s[fits], own, buckets),
        reuse,
    )


def _dispersion(arrival_s: FloatArray | None, buckets_of: IntArray, buckets: int) -> tuple[FloatArray, float]:
    """Variance over mean of arrivals per window, 1 where there are too few to tell or none are given; the window."""
    dispersion = np.ones(buckets)
    if arrival_s is None:
        return dispersion, math.inf
    window_s = min(float(np.ptp(arrival_s)) / _WINDOWS, _LONGEST_WINDOW_S)
    if window_s <= 0:
        return dispersion, math.inf
    window_of = ((arrival_s - arrival_s.min()) / window_s).astype(np.int64)
    for bucket in range(buckets):
        inside = window_of[buckets_of == bucket]
        if len(inside) >= _FEWEST_ARRIVALS:
            counts = np.bincount(inside, minlength=int(window_of.max()))
            dispersion[bucket] = max(counts.var() / counts.mean(), 1.0)
    return dispersion, window_s


def _sums(buckets_of: IntArray, values: FloatArray, buckets: int) -> FloatArray:
    return np.bincount(buckets_of, values, buckets).astype(np.float64)
