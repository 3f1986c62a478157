"""The expected quality of one stage: how long its requests wait and decode, from the demand and the cost model.

The paper states the aim (quality of experience) and not the formula **[open]**; this one is ours. For a stage of ``m``
instances over the buckets [i, j):

- Prefill takes a share rho = (prompts/s · seconds per prompt) / m of each instance's time. In what is left an instance
  does f = (1 - rho) / tau(B) iterations per second, where tau(B) is the cost model's time for a batch of B requests of
  the stage's own mix of lengths, so that a kernel that minds unequal lengths makes wide stages dear.
- Little's law closes the loop: B · f = tokens/s / m. The B that solves it is the batch in flight; TPOT = 1 / f.
- A prompt waits as in an M/G/m queue (Sakasegawa's approximation) and is computed in chunks, each in an iteration that
  decodes too.
- B is bounded by the KV cache and by max_num_seqs. Beyond the bound, or with rho >= 1, the stage cannot carry its load:
  its *overload* is the factor by which the load exceeds what it can carry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l4sim.cost.batch import Batch, Prefill
from l4sim.cost.model import CostModel
from l4sim.policies.l4.demand import Demand

FloatArray = NDArray[np.float64]

_NO_CONTEXTS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one instance can hold."""

    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, slots=True)
class StageQuality:
    """The expectation for one stage with 1 ... M instances; shapes ``[M]``, index m - 1."""

    latency_weight: FloatArray
    """Expected normalized latency of the stage's requests, summed per second of arrivals; inf where overloaded."""
    overload: FloatArray
    """Load over what can be carried; > 1 means that the stage cannot carry it."""
    batch: FloatArray
    """Requests in flight per instance."""
    tpot_s: FloatArray
    ttft_s: FloatArray
    """Mean over the requests whose prompt ends in the stage."""


def prefill_seconds(cost: CostModel, demand: Demand, max_num_batched_tokens: int) -> tuple[FloatArray, FloatArray]:
    """Seconds and iterations to compute one mean prompt of each bucket alone; shapes ``[b]``."""
    seconds = np.zeros(len(demand.prompt_tokens))
    chunks = np.zeros(len(demand.prompt_tokens))
    for bucket, (prompt, new) in enumerate(zip(demand.prompt_tokens, demand.new_prompt_tokens, strict=True)):
        if demand.arrivals_per_s[bucket] == 0:
            continue
        done, total = round(prompt - new), round(prompt)
        while done < total:
            chunk = min(total - done, max_num_batched_tokens)
            seconds[bucket] += cost.iteration_s(Batch(_NO_CONTEXTS, 0, (Prefill(chunk, done),)))
            chunks[bucket] += 1
            done += chunk
    return seconds, chunks


def stage_lengths(demand: Demand, first: int, last: int, count: int) -> NDArray[np.int64]:
    """``count`` context lengths that stand for the mix decoded in buckets [first, last), in no order of length."""
    tokens = demand.decode_tokens_per_s[first:last]
    if tokens.sum() == 0:
        tokens = np.ones_like(tokens)
    share = np.concatenate(([0.0], np.cumsum(tokens) / tokens.sum()))
    quantiles = np.interp((np.arange(count) + 0.5) / count, share, demand.edges_tokens[first : last + 1])
    # Engines do not sort their batches. A stride coprime to the count visits all lengths, neighbours far apart.
    stride = next(s for s in range(max(round(count * 0.618), 1), count + 2) if math.gcd(s, count) == 1)
    order = np.arange(count) * stride % count
    return np.maximum(quantiles[order], 1).astype(np.int64)


class StageModel:
    """Evaluates stages of one demand; what they share is computed once."""

    def __init__(self, demand: Demand, cost: CostModel, capacity: Capacity, handover_s: float) -> None:
        """``handover_s``: seconds that a request loses when it is handed over."""
        self._demand = demand
        self._cost = cost
        self._capacity = capacity
        self._handover_s = handover_s
        self._prefill_s, self._chunks = prefill_seconds(cost, demand, capacity.max_num_batched_tokens)

    def quality(self, first: int, last: int, max_instances: int) -> StageQuality:
        """What to expect of buckets [first, last) with 1 ... ``max_instances`` instances."""
        demand, capacity = self._demand, self._capacity
        span = slice(first, last)
        instances = np.arange(1, max_instances + 1, dtype=np.float64)
        tokens_per_s = float(demand.decode_tokens_per_s[span].sum())
        arrivals_per_s = float(demand.arrivals_per_s[span].sum())
        busy = float(demand.arrivals_per_s[span] @ self._prefill_s[span]) / instances
        mean_context = self._mean_context(span, tokens_per_s)
        most = max(min(capacity.max_num_seqs, capacity.kv_tokens / mean_context), 1.0)
        sizes, taus = self._iteration_times(first, last, most)

        # tau(B) / B falls with B: the batch in flight is where it meets the time that a token may take.
        allowed_s = np.maximum(1 - busy, 1e-9) * instances / max(tokens_per_s, 1e-12)
        batch = _solve_batch(sizes, taus, allowed_s)
        fullest = taus[-1] / sizes[-1]
        overload = np.maximum(busy + fullest * tokens_per_s / instances, busy)
        tau = np.interp(batch, sizes, taus)
        tpot_s = tau / np.maximum(1 - busy, 1e-9)

        chunks = self._chunks[span]
        service_s = self._prefill_s[span][:, None] + chunks[:, None] * tau[None, :]
        wait_s, queue_load = _queue(demand.arrivals_per_s[span], service_s, instances)
        overload = np.maximum(overload, queue_load)
        ttft_s = wait_s[None, :] + service_s
        weight = demand.arrival_weights[span] @ ttft_s + float(demand.decode_weights[span].sum()) * tpot_s
        weight = weight + demand.crossing_weights[last - 1] * self._handover_s
        mean_ttft_s = demand.arrivals_per_s[span] @ ttft_s / max(arrivals_per_s, 1e-12)
        return StageQuality(np.where(overload < 1, weight, np.inf), overload, batch, tpot_s, mean_ttft_s)

    def _mean_context(self, span: slice, tokens_per_s: float) -> float:
        demand = self._demand
        if tokens_per_s == 0:
            return float(demand.decode_context_tokens[span].mean())
        return float(demand.decode_tokens_per_s[span] @ demand.decode_context_tokens[span]) / tokens_per_s

    def _iteration_times(self, first: int, last: int, most: float) -> tuple[FloatArray, FloatArray]:
        """Batch sizes 1, 4, 16, ... up to ``most``, and the iteration time of each with the stage's mix of lengths."""
        sizes = sorted({*(size for size in (1, 4, 16, 64, 256, 1024) if size < most), int(most)})
        taus = []
        for size in sizes:
            contexts = stage_lengths(self._demand, first, last, size)
            taus.append(self._cost.iteration_s(Batch(contexts, int(contexts.sum()))))
        return np.array(sizes, dtype=np.float64), np.array(taus)


def _solve_batch(sizes: FloatArray, taus: FloatArray, allowed_s: FloatArray) -> FloatArray:
    """The batch B with tau(B) / B = ``allowed_s``, tau linear between the sizes; at most the largest size.

    Below the smallest size there is less than one request in flight, each at the speed of a batch of one.
    """
    ratios = taus / sizes
    batch = np.minimum(taus[0] / allowed_s, sizes[0])
    for low in range(len(sizes) - 1):
        slope = (taus[low + 1] - taus[low]) / (sizes[low + 1] - sizes[low])
        offset = taus[low] - slope * sizes[low]
        inside = (allowed_s < ratios[low]) & (allowed_s >= ratios[low + 1])
        batch = np.where(inside, offset / np.maximum(allowed_s - slope, 1e-15), batch)
    solved: FloatArray = np.where(allowed_s < ratios[-1], sizes[-1], batch)
    return solved


def _queue(arrivals_per_s: FloatArray, service_s: FloatArray, instances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean wait and utilisation of an M/G/m queue, for each number of instances.

    Shapes: ``arrivals_per_s`` ``[b]``, ``service_s`` ``[b, M]``, ``instances`` and both results ``[M]``.
    Source: Sakasegawa, Ann. Inst. Stat. Math. 29 (1977), with (1 + cv²) / 2 for the service times' spread.
    """
    rate = arrivals_per_s.sum()
    if rate == 0:
        return np.zeros(len(instances)), np.zeros(len(instances))
    mean = arrivals_per_s @ service_s / rate
    square = arrivals_per_s @ service_s**2 / rate
    load = rate * mean / instances
    stable = np.minimum(load, 0.999)
    wait = stable ** (np.sqrt(2 * (instances + 1)) - 1) / (instances * (1 - stable)) * square / mean / 2
    return wait, load
