"""Iteration times of every candidate stage by batch size, from as few calls of the cost model as will do.

The planner compares hundreds of ranges of lengths, and a call of a cost model takes tens of microseconds. What does not
depend on the lengths is measured once per batch size; what lengths add (attention, and what the kernel charges for
their being unequal), once per bucket for single requests and once per range for batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.batch import Batch, Prefill
from l4sim.cost.model import CostModel
from l4sim.policies.l4.demand import Demand

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Ranges = tuple[tuple[int, int], ...]
"""Ranges [first, last) of a demand's buckets."""

SIZES = (1, 8, 32, 256, 1024)
"""Batch sizes between which iteration times are interpolated linearly."""
_FEW, _MANY = 8, 32
"""Size at which a range's own lengths are tried, by whether the KV cache holds many; beyond, they add in proportion."""

_NO_CONTEXTS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class IterationTimes:
    """Seconds of decode iterations; ``p`` is the number of ranges."""

    sizes: FloatArray
    """Shape ``[sizes]``."""
    tau_s: FloatArray
    """Shape ``[p, sizes]``: an iteration with so many requests of the range's own mix of lengths."""
    floor_s: float
    """An iteration of one shortest request: what any iteration costs."""


@dataclass(frozen=True, slots=True)
class Prefills:
    """What a bucket's mean prompt costs; shapes ``[2, b]``: nothing of it cached, and all that was seen before."""

    seconds: FloatArray
    """To compute it alone."""
    chunks: FloatArray
    """The iterations that this takes."""
    added_s: FloatArray
    """What it adds to iterations that decode anyway."""
    filled: FloatArray
    """The token budgets of iterations that it fills."""


def iteration_times(
    demand: Demand, cost: CostModel, ranges: Ranges, max_num_seqs: int, kv_tokens: int
) -> IterationTimes:
    """Iteration times for ranges ``[first, last)`` of the demand's buckets; batches of up to ``max_num_seqs``.

    ``kv_tokens`` is what the KV cache holds.
    """
    sizes = sorted({min(size, max_num_seqs) for size in SIZES})
    floors = np.array([_decode_s(cost, np.ones(size, dtype=np.int64)) for size in sizes])
    floor_s = dict(zip(sizes, floors, strict=True))
    single_s = _single_request_s(demand, cost) - floors[0]
    tau_s = np.empty((len(ranges), len(sizes)))
    for row, (first, last) in enumerate(ranges):
        shares = _shares(demand, first, last)
        mean_context = float(shares @ demand.decode_context_tokens[first:last])
        single = float(shares @ single_s[first:last])
        size = min(_MANY if mean_context * _MANY <= kv_tokens else _FEW, max_num_seqs)
        contexts = stage_lengths(demand, first, last, size)
        # The lengths are those of evenly filled buckets: what they add is scaled to the tokens that there are.
        scale = mean_context * size / contexts.sum()
        several = scale * (_decode_s(cost, contexts) - floor_s[size])
        tau_s[row] = floors + np.interp(sizes, (1, size), (single, several))
        beyond = np.array(sizes) > size
        tau_s[row, beyond] += several * (np.array(sizes)[beyond] / size - 1)
    return IterationTimes(np.array(sizes, dtype=np.float64), tau_s, float(floors[0]))


def prefills_of(demand: Demand, cost: CostModel, max_num_batched_tokens: int, floor_s: float) -> Prefills:
    """What the demand's prompts cost, where any iteration costs ``floor_s``."""
    prompt, new = demand.prompt_tokens, demand.new_prompt_tokens
    without = prefill_seconds(cost, prompt, prompt, max_num_batched_tokens)
    within = without if (prompt == new).all() else prefill_seconds(cost, prompt, new, max_num_batched_tokens)
    seconds, chunks = (np.stack(pair) for pair in zip(without, within, strict=True))
    return Prefills(seconds, chunks, seconds - chunks * floor_s, np.stack((prompt, new)) / max_num_batched_tokens)


def prefill_seconds(
    cost: CostModel, prompt_tokens: FloatArray, new_tokens: FloatArray, max_num_batched_tokens: int
) -> tuple[FloatArray, FloatArray]:
    """Seconds and iterations to compute prompts alone, of which all but ``new_tokens`` are cached; shapes ``[b]``.

    A chunk's time grows linearly with the tokens before it, so that the first, the last and the partial chunk tell all.
    """
    seconds = np.zeros(len(prompt_tokens))
    chunks = np.zeros(len(prompt_tokens))
    for bucket, (prompt, new) in enumerate(zip(prompt_tokens, new_tokens, strict=True)):
        if prompt == 0:
            continue
        done, total = round(prompt - new), max(round(prompt), 1)
        done = min(done, total - 1)
        full, rest = divmod(total - done, max_num_batched_tokens)
        if full:
            ends = {done, done + (full - 1) * max_num_batched_tokens}
            each = [cost.iteration_s(Batch(_NO_CONTEXTS, 0, (Prefill(max_num_batched_tokens, at),))) for at in ends]
            seconds[bucket] += full * sum(each) / len(each)
        if rest:
            seconds[bucket] += cost.iteration_s(Batch(_NO_CONTEXTS, 0, (Prefill(rest, total - rest),)))
        chunks[bucket] = full + (rest > 0)
    return seconds, chunks


def stage_lengths(demand: Demand, first: int, last: int, count: int) -> IntArray:
    """``count`` context lengths that stand for the mix decoded in buckets [first, last), in no order of length.

    Each is the mean of its part of the distribution, so that their sum is what such a batch holds.
    """
    share = np.concatenate(([0.0], np.cumsum(_shares(demand, first, last))))
    within = 8
    at = (np.arange(count * within) + 0.5) / (count * within)
    quantiles = np.interp(at, share, demand.edges_tokens[first : last + 1]).reshape(count, within).mean(axis=1)
    # Engines do not sort their batches. A stride coprime to the count visits all lengths, neighbours far apart.
    stride = next(s for s in range(max(round(count * 0.618), 1), count + 2) if math.gcd(s, count) == 1)
    order = np.arange(count) * stride % count
    lengths: IntArray = np.maximum(quantiles[order], 1).astype(np.int64)
    return lengths


def _shares(demand: Demand, first: int, last: int) -> FloatArray:
    """How decoding in buckets [first, last) is spread over them; evenly where there is none."""
    tokens = demand.decode_tokens_per_s[first:last]
    total = tokens.sum()
    return tokens / total if total > 0 else np.full(last - first, 1 / (last - first))


def _single_request_s(demand: Demand, cost: CostModel) -> FloatArray:
    """An iteration of one request of each bucket's mean context; shape ``[b]``."""
    contexts = np.maximum(demand.decode_context_tokens, 1).astype(np.int64)
    return np.array([_decode_s(cost, contexts[bucket : bucket + 1]) for bucket in range(len(contexts))])


def _decode_s(cost: CostModel, contexts: IntArray) -> float:
    return cost.iteration_s(Batch(contexts, int(contexts.sum())))
