"""The expected quality of candidate stages, from the demand and the cost model: all ranges and sizes at once.

The paper states the aim (quality of experience) and not the formula **[open]**; this one is ours. A stage has ``m``
instances over the buckets [first, last); per second it gets λ prompts and decodes T tokens.

- *Decoding.* tau(B) is an iteration with B requests of the stage's own mix of lengths, so that a kernel that minds
  unequal lengths makes wide stages dear; tau_0 is what any iteration costs. A prompt that takes p seconds in c
  iterations of its own adds p - c·tau_0 to iterations that decode too. Of m seconds, D = m - λ·(p - c·tau_0) are left,
  and Little's law closes the loop: B·D = T·tau(B). With tau(B) = o + s·B between two batch sizes, B = T·o / (D - T·s);
  each request gets a token every TPOT = m·B / T.
- *Prefill.* A prompt is computed in iterations that decode too, p + c·(tau(B) - tau_0). Prompts wait for one another as
  in a queue whose service is a prompt's own share of such iterations, short prompts sharing one. A router that counts
  requests and not their tokens does less well than one queue for all instances: `_UNEVEN` says by how much. An arrival
  at a decoding engine also waits for the running iteration and the one already planned: 1.5·tau(B) on average.
- *KV cache.* A stage that keeps all its slots (KV cache over mean context, at most max_num_seqs) busy with probability
  P makes prompts wait for a slot, too.
- *Handover.* A request that enters from the stage below misses 1.5·tau(B), as an arrival does.
- *Load.* With no D left, or B beyond the slots, or prompts that come faster than they are computed, the stage cannot
  carry its load: the largest of the three ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.model import CostModel
from l4sim.policies.l4.demand import Demand
from l4sim.policies.l4.iteration_times import IterationTimes, iteration_times, prefill_seconds
from l4sim.policies.l4.queueing import mean_wait_s, waiting_probability

FloatArray = NDArray[np.float64]

_UNEVEN = 0.15
"""Weight of separate queues, one per instance with randomly split arrivals, against one queue for all."""
_FELT_AFTER = 1.5
"""Iterations that pass before an engine that schedules ahead runs what has just arrived."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one instance can hold."""

    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, slots=True)
class StageTable:
    """Expectations for ``p`` ranges of buckets with 1 ... ``M`` instances: shapes ``[p, M]``, column m - 1."""

    ranges: tuple[tuple[int, int], ...]
    """Buckets [first, last) of each row."""
    load: FloatArray
    """Load over what can be carried; at 1 and above the stage cannot carry it and all else is meaningless."""
    batch: FloatArray
    """Requests in flight per instance."""
    tau_s: FloatArray
    """An iteration that only decodes."""
    tpot_s: FloatArray
    wait_s: FloatArray
    """Mean wait of a prompt before its first chunk."""
    wait_probability: FloatArray
    mixed_s: FloatArray
    """What decoding adds to an iteration that computes a prompt."""
    prefill_s: FloatArray
    """Seconds to compute each bucket's mean prompt alone; shape ``[b]``."""
    prefill_chunks: FloatArray
    """The iterations that this takes; shape ``[b]``."""

    def ttft_sums(self, weights: FloatArray) -> FloatArray:
        """Sum over the prompts of each range of their TTFT times a weight given per bucket; shape ``[p, M]``."""
        count = self.sums(weights)[:, None]
        alone_s = self.sums(weights * self.prefill_s)[:, None]
        chunks = self.sums(weights * self.prefill_chunks)[:, None]
        return np.asarray(count * self.wait_s + alone_s + chunks * self.mixed_s)

    def sums(self, values: FloatArray) -> FloatArray:
        """Sums over each range of values given per bucket; shape ``[p]``."""
        return range_sums(values, self.ranges)


def handover_s(table: StageTable) -> FloatArray:
    """Seconds that a request loses when it enters from the stage below; shape ``[p, M]``."""
    return _FELT_AFTER * table.tau_s


def range_sums(values: FloatArray, ranges: tuple[tuple[int, int], ...]) -> FloatArray:
    """Sums of ``values[first:last]`` for every range; shape ``[p]``."""
    before = np.concatenate(([0.0], np.cumsum(values)))
    bounds = np.array(ranges)
    # A difference of cumulative sums may miss zero by a rounding error, which as a rate would mean something.
    return np.asarray(np.maximum(before[bounds[:, 1]] - before[bounds[:, 0]], 0.0))


def stage_table(
    demand: Demand, cost: CostModel, capacity: Capacity, ranges: tuple[tuple[int, int], ...], instances: int
) -> StageTable:
    """What to expect of stages over ``ranges`` of buckets with 1 ... ``instances`` instances."""
    times = iteration_times(demand, cost, list(ranges), capacity.max_num_seqs, capacity.kv_tokens)
    prefill_s, chunks = prefill_seconds(
        cost, demand.prompt_tokens, demand.new_prompt_tokens, capacity.max_num_batched_tokens
    )
    arrivals = demand.arrivals_per_s
    m = np.arange(1, instances + 1, dtype=np.float64)[None, :]
    prompts_per_s = range_sums(arrivals, ranges)[:, None]
    tokens_per_s = range_sums(demand.decode_tokens_per_s, ranges)[:, None]

    added_s = range_sums(arrivals * (prefill_s - chunks * times.floor_s), ranges)[:, None]
    slots = _slots(demand, capacity, ranges)
    batch = solve_batch(times, tokens_per_s, m - added_s, slots)
    tau_s = _interpolate(times, batch)
    tpot_s = m * tau_s / np.maximum(m - added_s, 1e-12)
    mixed_s = np.maximum(tau_s - times.floor_s, 0.0)

    # A prompt's share of the engine: what it adds, and the fraction of an iteration's token budget that it fills.
    own_s = prefill_s - chunks * times.floor_s
    filled = demand.new_prompt_tokens / capacity.max_num_batched_tokens
    work_s = range_sums(arrivals * own_s, ranges)[:, None] + range_sums(arrivals * filled, ranges)[:, None] * tau_s
    square_s2 = (
        range_sums(arrivals * own_s**2, ranges)[:, None]
        + 2 * range_sums(arrivals * own_s * filled, ranges)[:, None] * tau_s
        + range_sums(arrivals * filled**2, ranges)[:, None] * tau_s**2
    )
    some = np.maximum(prompts_per_s, 1e-12)
    queue_load = work_s / m
    one_queue_s = mean_wait_s(queue_load, m, work_s / some, square_s2 / some)
    own_queue_s = mean_wait_s(queue_load, np.ones_like(m), work_s / some, square_s2 / some)

    fullest_s = tokens_per_s * (_interpolate(times, slots) / slots)
    slot_load = batch / slots
    entering = prompts_per_s + _entering(demand.crossings_per_s, ranges)
    stay_s = tokens_per_s / np.maximum(entering, 1e-12) * tpot_s
    slot_wait_s = mean_wait_s(slot_load, m * np.maximum(slots, 1.0), stay_s, 2 * stay_s**2)

    busy = np.minimum(batch, 1.0)
    wait_s = (1 - _UNEVEN) * one_queue_s + _UNEVEN * own_queue_s + slot_wait_s + busy * _FELT_AFTER * tau_s
    return StageTable(
        ranges,
        np.maximum(np.maximum((added_s + fullest_s) / m, queue_load), slot_load * (slot_load >= 1)),
        batch,
        tau_s,
        tpot_s,
        wait_s,
        waiting_probability(queue_load, m),
        mixed_s,
        prefill_s,
        chunks,
    )


def _slots(demand: Demand, capacity: Capacity, ranges: tuple[tuple[int, int], ...]) -> FloatArray:
    """Requests of each range's mean context that an instance holds; shape ``[p, 1]``."""
    tokens = range_sums(demand.decode_tokens_per_s, ranges)
    contexts = range_sums(demand.decode_tokens_per_s * demand.decode_context_tokens, ranges)
    middles = np.array([demand.decode_context_tokens[first:last].mean() for first, last in ranges])
    mean = np.where(tokens > 0, contexts / np.maximum(tokens, 1e-300), middles)
    return np.asarray(np.clip(capacity.kv_tokens / mean, 1.0, capacity.max_num_seqs)[:, None])


def _entering(crossings_per_s: FloatArray, ranges: tuple[tuple[int, int], ...]) -> FloatArray:
    """What comes from the stage below each range, per second; shape ``[p, 1]``."""
    return np.array([[crossings_per_s[first - 1] if first else 0.0] for first, _ in ranges])


def solve_batch(times: IterationTimes, tokens_per_s: FloatArray, left: FloatArray, slots: FloatArray) -> FloatArray:
    """The batch B with B · left = tokens/s · tau(B), at most ``slots``; shape ``[p, M]``.

    ``left``: seconds per second that instances have for decoding. Below one request in flight, tau is that of one.
    """
    sizes, tau = times.sizes, times.tau_s
    hopeless = np.where(tokens_per_s > 0, np.inf, 0.0)
    batch = np.where(left > 0, tokens_per_s * tau[:, :1] / np.maximum(left, 1e-12), hopeless)
    for k, (small, large) in enumerate(pairwise(sizes.tolist())):
        slope = (tau[:, k + 1] - tau[:, k])[:, None] / (large - small)
        offset = tau[:, k][:, None] - slope * small
        room = left - tokens_per_s * slope
        solved = np.where(room > 0, tokens_per_s * offset / np.maximum(room, 1e-12), np.inf)
        batch = np.where(batch > small, np.maximum(solved, small), batch)
    return np.asarray(np.minimum(batch, slots))


def _interpolate(times: IterationTimes, batch: FloatArray) -> FloatArray:
    """Iteration times of batches, shape ``[p, M]``, linear between the sizes."""
    sizes, tau = times.sizes, times.tau_s
    tau_s = np.broadcast_to(tau[:, :1], batch.shape)
    for k, (small, large) in enumerate(pairwise(sizes.tolist())):
        slope = (tau[:, k + 1] - tau[:, k])[:, None] / (large - small)
        tau_s = np.where(batch > small, tau[:, k][:, None] + slope * (batch - small), tau_s)
    return np.asarray(tau_s)
