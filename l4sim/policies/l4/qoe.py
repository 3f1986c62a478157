"""The expected quality of candidate stages, from the demand and the cost model: all ranges and sizes at once.

The paper states the aim (quality of experience) and not the formula **[open]**; this one is ours. A stage has ``m``
instances over the buckets [first, last); per second it gets λ prompts and decodes T tokens.

- *Decoding.* tau(B) is an iteration with B requests of the stage's own mix of lengths, so that a kernel that minds
  unequal lengths makes wide stages dear; tau_0 is what any iteration costs. A prompt that takes p seconds in c
  iterations of its own adds p - c·tau_0 to iterations that decode too. Of m seconds, D = m - λ·(p - c·tau_0) are left,
  and Little's law closes the loop: B·D = T·tau(B'). A request finds itself in a batch B' above the average: beside the
  B others of a single instance, whose number is about Poisson, less so where a router levels m instances: by 1/√m, and
  it is never in one of less than one. With tau(B) = o + s·B between two batch sizes, B = T·(o + s/√m) / (D - T·s); each
  request gets a token every TPOT = m·B / T.
- *Prefill.* A prompt is computed in iterations that decode too, p + c·(tau(B) - tau_0). Prompts wait for one another as
  in a queue whose service is a prompt's own share of such iterations, short prompts sharing one. A router that sees
  loads and no service times does less well than one queue for all instances: `_UNEVEN` says by how much; what it sends
  after a prefix has a queue, and a batch, as if its instance were alone. An arrival at a decoding engine also waits for
  the running iteration and the one already planned: 1.5·tau(B) on average.
- *Prefix cache.* What of a prompt is cached is `reuse`'s estimate; prompts are taken to have all of it or nothing.
- *KV cache.* Prompts also wait for one of the stage's slots (KV cache over mean context, at most max_num_seqs), each of
  which is taken for as long as a request stays.
- *Handover.* A request that enters from the stage below misses 1.5·tau(B), as an arrival does.
- *Load.* The stage cannot carry its load with nothing of D left even for full batches, with B beyond the slots, or with
  prompts that come faster than they are computed. What is too much then piles up for a while (`queueing.HORIZON_S`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.model import CostModel
from l4sim.policies.l4.demand import Demand
from l4sim.policies.l4.iteration_times import IterationTimes, Prefills, Ranges, iteration_times, prefills_of
from l4sim.policies.l4.queueing import MOST_LOAD, mean_wait_s, waiting_probability

FloatArray = NDArray[np.float64]

_UNEVEN = 0.15
"""Weight of separate queues, one per instance with randomly split arrivals, against one queue for all."""
_BURST_DEVIATIONS = 3.0
_BURST_DEVIATIONS_FOLLOWED = 1.0
"""Standard deviations above the mean that the flow into caches is taken at, where instances are drawn and where the
router follows prefixes, which are then in one cache each. Of 0 to 3 these ranked best on an agentic trace."""
_REUSE_POINTS = 24
_REUSE_ROUNDS = 4
"""Numbers of instances that reuse is worked out for, and rounds of its fixed point."""
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

    ranges: Ranges
    """Buckets [first, last) of each row."""
    load: FloatArray
    """Load over what can be carried; at 1 and above the stage cannot carry it, and all else is for a limited time."""
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
    cached: FloatArray
    """Share of the reused prompt tokens that the prefix caches hold."""
    prefills: Prefills

    def ttft_sums(self, weights: FloatArray) -> FloatArray:
        """Sum over the prompts of each range of their TTFT times a weight given per bucket; shape ``[p, M]``."""
        count = range_sums(weights, self.ranges)
        alone_s = blended(weights * self.prefills.seconds, self.ranges, self.cached)
        chunks = blended(weights * self.prefills.chunks, self.ranges, self.cached)
        return np.asarray(count * self.wait_s + alone_s + chunks * self.mixed_s)


def handover_s(table: StageTable) -> FloatArray:
    """Seconds that a request loses when it enters from the stage below; shape ``[p, M]``."""
    return _FELT_AFTER * table.tau_s


def stage_table(demand: Demand, cost: CostModel, capacity: Capacity, ranges: Ranges, instances: int) -> StageTable:
    """What to expect of stages over ``ranges`` of buckets with 1 ... ``instances`` instances."""
    times = iteration_times(demand, cost, ranges, capacity.max_num_seqs, capacity.kv_tokens)
    prefills = prefills_of(demand, cost, capacity.max_num_batched_tokens, times.floor_s)
    arrivals = demand.arrivals_per_s
    m = np.arange(1, instances + 1, dtype=np.float64)[None, :]
    tokens_per_s = range_sums(demand.decode_tokens_per_s, ranges)
    slots = np.clip(capacity.kv_tokens / mean_context_tokens(demand, ranges), 1.0, capacity.max_num_seqs)

    cached = cached_share(demand, capacity, times, prefills, ranges, m, slots)
    added_s = blended(arrivals * prefills.added_s, ranges, cached)
    followed = followed_share(demand, ranges, cached)
    uneven = followed + (1 - followed) / np.sqrt(m)
    batch = solve_batch(times, tokens_per_s, m - added_s, slots, uneven)
    tau_s = iteration_s(times, seen(batch, uneven))
    tpot_s = tau_s / np.maximum(1 - added_s / m, 1 - MOST_LOAD)

    bursts = dispersion(demand, ranges)
    queue_load, queue_s = _prompt_queue(
        demand, prefills, ranges, cached, tau_s, m, bursts, followed + (1 - followed) * _UNEVEN
    )
    fullest_s = tokens_per_s * (iteration_s(times, slots) / slots)
    entering = range_sums(arrivals, ranges) + entering_sums(demand.crossings_per_s, ranges)
    stay_s = tokens_per_s / np.maximum(entering, 1e-12) * tpot_s
    decode_load = (added_s + fullest_s) / m
    slot_load = np.where(batch < slots, batch / slots, np.maximum(decode_load, 1.0))
    slot_wait_s = mean_wait_s(slot_load, m * slots, stay_s, 2 * stay_s**2, bursts)
    return StageTable(
        ranges,
        load=np.maximum.reduce([decode_load, queue_load, np.where(batch < slots, 0.0, slot_load)]),
        batch=batch,
        tau_s=tau_s,
        tpot_s=tpot_s,
        wait_s=queue_s + slot_wait_s + np.minimum(batch, 1.0) * _FELT_AFTER * tau_s,
        wait_probability=waiting_probability(queue_load, m),
        mixed_s=np.maximum(tau_s - times.floor_s, 0.0),
        cached=cached,
        prefills=prefills,
    )


def _prompt_queue(
    demand: Demand,
    prefills: Prefills,
    ranges: Ranges,
    cached: FloatArray,
    tau_s: FloatArray,
    m: FloatArray,
    bursts: FloatArray,
    apart: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Load of the prompts' queue, and the mean wait in it if it is one queue to ``1 - apart``; shapes ``[p, M]``."""
    arrivals, added, filled = demand.arrivals_per_s, prefills.added_s, prefills.filled
    # A prompt's share of the engine: what it adds, and the fraction of an iteration's token budget that it fills.
    work_s = blended(arrivals * added, ranges, cached) + blended(arrivals * filled, ranges, cached) * tau_s
    square_s2 = (
        blended(arrivals * added**2, ranges, cached)
        + 2 * blended(arrivals * added * filled, ranges, cached) * tau_s
        + blended(arrivals * filled**2, ranges, cached) * tau_s**2
    )
    prompts = np.maximum(range_sums(arrivals, ranges), 1e-12)
    load, mean_s, mean_s2 = work_s / m, work_s / prompts, square_s2 / prompts
    one_queue_s = mean_wait_s(load, m, mean_s, mean_s2, bursts)
    own_queue_s = mean_wait_s(load, np.ones_like(m), mean_s, mean_s2, bursts)
    return load, (1 - apart) * one_queue_s + apart * own_queue_s


def cached_share(
    demand: Demand,
    capacity: Capacity,
    times: IterationTimes,
    prefills: Prefills,
    ranges: Ranges,
    instances: FloatArray,
    slots: FloatArray,
) -> FloatArray:
    """Share of the reused prompt tokens that the caches hold, for ``instances`` ``[1, M]``; shape ``[p, M]``.

    All of it where the demand does not say how prefixes come back. Else a fixed point: what is held need not be
    computed, and what is not computed evicts nothing. It is found for some numbers of instances and interpolated.
    """
    reuse = demand.reuse
    if reuse is None:
        return np.ones((len(ranges), instances.shape[1]))
    m = np.unique(np.geomspace(1, instances.shape[1], _REUSE_POINTS).round())[None, :]
    prompt_per_s = range_sums(demand.arrivals_per_s * demand.prompt_tokens, ranges)
    reused_per_s = prompt_per_s - range_sums(demand.arrivals_per_s * demand.new_prompt_tokens, ranges)
    prompt_squares = range_sums(demand.arrivals_per_s * demand.prompt_tokens**2, ranges)
    length_tokens = prompt_squares / np.maximum(prompt_per_s, 1e-12)
    tokens_per_s = range_sums(demand.decode_tokens_per_s, ranges)
    within = reuse.within(ranges)
    prompts = range_sums(demand.arrivals_per_s, ranges) * demand.window_s
    # Caches must outlast the bursts: a stage that loses its prefixes in one cannot catch up again.
    deviations = _BURST_DEVIATIONS_FOLLOWED if reuse.followed else _BURST_DEVIATIONS
    crowding = 1 + deviations * np.sqrt(dispersion(demand, ranges) / np.maximum(prompts, 1e-12))
    # An empty cluster fills its caches before its queues: the fixed point is the one with much in the caches.
    held_per_s = np.repeat(reused_per_s, m.shape[1], axis=1)
    for _ in range(_REUSE_ROUNDS):
        share = held_per_s / np.maximum(reused_per_s, 1e-12)
        busy_s = blended(demand.arrivals_per_s * prefills.added_s, ranges, share)
        in_use = (
            solve_batch(times, tokens_per_s, m - busy_s, slots, 1 / np.sqrt(m)) + np.minimum(busy_s / m, 1)
        ) / slots
        # What is kept needs its own room: only what else there is can take in others before it is evicted.
        idle_tokens = np.maximum(capacity.kv_tokens * (1 - in_use) - length_tokens, 0.0)
        kept_s = idle_tokens * m / np.maximum(crowding * (prompt_per_s - held_per_s + tokens_per_s), 1e-12)
        held_per_s = np.minimum(reuse.held_tokens_per_s(within, m, kept_s), reused_per_s)
    share = held_per_s / np.maximum(reused_per_s, 1e-12)
    return np.stack([np.interp(instances[0], m[0], row) for row in share])


def dispersion(demand: Demand, ranges: Ranges) -> FloatArray:
    """Variance over mean of each range's arrivals, buckets taken to be independent; shape ``[p, 1]``."""
    arrivals = range_sums(demand.arrivals_per_s, ranges)
    varying = range_sums(demand.arrivals_per_s * demand.dispersion, ranges)
    return np.where(arrivals > 0, varying / np.maximum(arrivals, 1e-300), 1.0)


def followed_share(demand: Demand, ranges: Ranges, cached: FloatArray) -> FloatArray:
    """Share of the prompts that go where their prefix is rather than where there is room; shape ``[p, M]``."""
    if demand.reuse is None or not demand.reuse.followed:
        return np.zeros_like(cached)
    prompts = range_sums(demand.arrivals_per_s * demand.prompt_tokens, ranges)
    new = range_sums(demand.arrivals_per_s * demand.new_prompt_tokens, ranges)
    return np.asarray(cached * (1 - new / np.maximum(prompts, 1e-12)))


def range_sums(values: FloatArray, ranges: Ranges) -> FloatArray:
    """Sums of ``values[first:last]`` for every range; shape ``[p, 1]``."""
    before = np.concatenate(([0.0], np.cumsum(values)))
    first, last = np.array(ranges).T
    return np.asarray((before[last] - before[first])[:, None])


def blended(values: FloatArray, ranges: Ranges, cached: FloatArray) -> FloatArray:
    """Sums over every range of values without and with cached prefixes, ``[2, b]``, by what is cached; ``[p, M]``."""
    without, within = (range_sums(row, ranges) for row in values)
    return np.asarray(without + (within - without) * cached)


def entering_sums(crossing: FloatArray, ranges: Ranges) -> FloatArray:
    """What crosses each range's lower end, of values given per bucket for its upper edge; shape ``[p, 1]``."""
    return np.array([[crossing[first - 1] if first else 0.0] for first, _ in ranges])


def mean_context_tokens(demand: Demand, ranges: Ranges) -> FloatArray:
    """Mean context of what each range decodes, or of its buckets if it decodes nothing; shape ``[p, 1]``."""
    tokens = range_sums(demand.decode_tokens_per_s, ranges)
    contexts = range_sums(demand.decode_tokens_per_s * demand.decode_context_tokens, ranges)
    middles = range_sums(demand.decode_context_tokens, ranges) / np.array([[last - first] for first, last in ranges])
    return np.where(tokens > 0, contexts / np.maximum(tokens, 1e-300), middles)


def solve_batch(
    times: IterationTimes, tokens_per_s: FloatArray, left: FloatArray, slots: FloatArray, uneven: FloatArray
) -> FloatArray:
    """The batch B with B · left = tokens/s · tau(`seen`), at most ``slots``; shape ``[p, M]``.

    ``left``: seconds per second that instances have for decoding.
    """
    sizes, tau = times.sizes, times.tau_s
    slopes = np.diff(tau, axis=1) / np.diff(sizes) if len(sizes) > 1 else np.zeros((len(tau), 1))
    batch = _intersection(tokens_per_s, tau[:, :1], slopes[:, :1] * uneven, left)
    for k, small in enumerate(sizes[:-1].tolist()):
        slope = slopes[:, k, None]
        offset = tau[:, k, None] + slope * (uneven - small)
        solved = _intersection(tokens_per_s, offset, slope, left)
        batch = np.where(batch > small, np.maximum(solved, small), batch)
    return np.asarray(np.minimum(batch, slots))


def _intersection(tokens_per_s: FloatArray, offset: FloatArray, slope: FloatArray, left: FloatArray) -> FloatArray:
    """B with B · left = tokens/s · (offset + slope · B); infinite where there is none, 0 without tokens."""
    room = left - tokens_per_s * slope
    hopeless = np.where(tokens_per_s > 0, np.inf, 0.0)
    return np.where(room > 0, tokens_per_s * offset / np.maximum(room, 1e-12), hopeless)


def seen(batch: FloatArray, uneven: FloatArray) -> FloatArray:
    """The batch that a request finds itself in, where instances hold ``batch`` requests on average."""
    return np.asarray(np.maximum(batch, 1.0) + uneven * np.minimum(batch, 1.0))


def iteration_s(times: IterationTimes, batch: FloatArray) -> FloatArray:
    """Iteration times of batches, shape ``[p, M]``, linear between the sizes."""
    sizes, tau = times.sizes, times.tau_s
    tau_s = np.broadcast_to(tau[:, :1], batch.shape)
    for k, (small, large) in enumerate(pairwise(sizes.tolist())):
        slope = (tau[:, k + 1] - tau[:, k])[:, None] / (large - small)
        tau_s = np.where(batch > small, tau[:, k][:, None] + slope * (batch - small), tau_s)
    return np.asarray(tau_s)
