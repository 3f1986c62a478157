"""What a policy's gain is made of: the same comparison in worlds that each lack one more cause. **[ours]**

The gain is 1 - mean normalized latency of the policy / that of its rival. It is measured in four worlds, each like the
one before but for one thing, and a cause's share is what the gain loses with it:

1. as it is;
2. attention takes every batch for one of equal lengths (cost model `mean`): the loss is the *kernel's* share;
3. prompts cost nothing beside the decodes: the loss is the share of *isolation* of short requests from long prefills;
4. KV memory is ample: the loss is the share of *KV memory*;

and the gain that is left is *balancing*'s. Shares depend on the order of removal; this one goes from what L4's paper is
about to what any balancer does. Plans are made anew in every world.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame

from l4sim.cost.batch import Batch
from l4sim.cost.model import CostModel
from l4sim.experiment import Options, Setup, compare, resolve
from l4sim.workload.trace import Trace

AMPLE = 16
"""By how much KV memory is multiplied where it is to be ample."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A policy's gain over a rival on one trace, and its parts, which sum to it."""

    policy: str
    rival: str
    total: float
    """1 - policy's mean normalized latency / rival's; negative where the policy loses."""
    kernel: float
    isolation: float
    memory: float
    balancing: float
    heterogeneity: tuple[float, float]
    """Standard deviation over mean of the context lengths in a batch, time-weighted: the policy's and the rival's."""
    handovers: int


class _FreePrompts:
    """A cost model in which prompts take no time of their own."""

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._alone_s = cost.iteration_s(Batch(np.array([1]), 1))

    def iteration_s(self, batch: Batch) -> float:
        """The seconds of the batch's decodes; an iteration of prompts alone takes a single request's."""
        if not len(batch.decode_context_tokens):
            return self._alone_s
        return self._cost.iteration_s(batch._replace(prefills=()))

    def decode_segment_s(self, batch: Batch, iterations: int) -> tuple[float, float]:
        """As the cost model's."""
        return self._cost.decode_segment_s(batch, iterations)


def explain_gain(trace: Trace, options: Options, rivals: tuple[str, ...], policy: str = "l4") -> Gain:
    """The gain of ``policy`` over the best of ``rivals`` on a trace, by cause.

    Raises:
        InputError: what `l4sim.experiment.compare` refuses.
    """
    setup = resolve(options)
    as_it_is = {run.policy: run for run in compare(trace, [policy, *rivals], setup)}
    means = {name: float(run.requests["normalized_latency_s"].mean()) for name, run in as_it_is.items()}
    rival = min(rivals, key=means.__getitem__)

    equal = options if options.cost_model == "mean" else replace(options, cost_model="mean")
    without_skew = resolve(equal)
    without_prefill = replace(without_skew, cost=_FreePrompts(without_skew.cost))
    engine = without_prefill.engine
    without_limit = replace(without_prefill, engine=replace(engine, kv_blocks=engine.kv_blocks * AMPLE))

    total = 1 - means[policy] / means[rival]
    no_kernel = total if equal is options else _gain(trace, without_skew, policy, rival)
    no_prefill = _gain(trace, without_prefill, policy, rival)
    no_limit = _gain(trace, without_limit, policy, rival)
    moved = as_it_is[policy].migrations
    return Gain(
        policy,
        rival,
        total,
        kernel=total - no_kernel,
        isolation=no_kernel - no_prefill,
        memory=no_prefill - no_limit,
        balancing=no_limit,
        heterogeneity=(_heterogeneity(as_it_is[policy].iterations), _heterogeneity(as_it_is[rival].iterations)),
        handovers=int(((moved["kind"] == "handover") & (moved["status"] == "done")).sum()),
    )


def _gain(trace: Trace, setup: Setup, policy: str, rival: str) -> float:
    ours, theirs = (run.requests["normalized_latency_s"].mean() for run in compare(trace, [policy, rival], setup))
    return float(1 - ours / theirs)


def _heterogeneity(iterations: DataFrame) -> float:
    """Time-weighted spread of lengths over segments with at least two decoding requests."""
    table = iterations[iterations["decode_requests"] >= 2]
    seconds = (table["end_s"] - table["start_s"]).to_numpy()
    mean = (table["context_tokens"] / table["decode_requests"]).to_numpy()
    return float((table["context_std_tokens"].to_numpy() / mean) @ seconds / seconds.sum()) if len(table) else 0.0
