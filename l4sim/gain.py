"""Where a policy's gain over its best rival comes from, by taking one cause after another away. **[ours]**

The gain is 1 - mean normalized latency of the policy / that of its best rival. It is simulated four times, each time
without one more of its possible causes; the share of a cause is the gain that is lost when it is taken away:

1. everything as it is;
2. attention costs as if all lengths in a batch were equal (cost model `mean`): the loss is the *kernel's* share;
3. prompts also take no time: the loss is the share of *isolating* short requests from long prefills;
4. KV memory is also ample: the loss is the share of *KV memory*.

The gain that is left is that of *balancing*. Plans are made anew each time. The shares depend on the order; this one
goes from what L4's paper is about to what any load balancer does. A cause takes its load with it: where prompts are
most of the work, little is left to balance without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame

from l4sim.batch import Batch
from l4sim.cost.build import COST_MODELS
from l4sim.cost.model import CostModel
from l4sim.errors import InputError
from l4sim.experiment import Options, Setup, compare, resolve
from l4sim.policies.defaults import RIVALS, SOLE
from l4sim.results.run import Run
from l4sim.workload.trace import Trace

# Cost models that do not see unequal lengths in the first place.
_BLIND = ("mean", "sum", "affine")
_AMPLE = 16
"""By how much KV memory is multiplied where it is to be ample."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A policy's gain over its best rival on one trace, and its parts, which sum to it."""

    policy: str
    rival: str
    """Of the rivals the one with the lowest mean normalized latency."""
    normalized_latency_s: Mapping[str, float]
    """Means over finished requests: the policy's and every rival's."""
    finished: int
    """Requests that finished, the same ones under every policy."""
    total: float
    """1 - policy's mean normalized latency / rival's; negative where the policy loses."""
    kernel: float
    isolation: float
    memory: float
    balancing: float
    spread: float
    """Standard deviation over mean of the context lengths in a batch, time-weighted, under the policy."""
    rival_spread: float
    handovers: int
    """Requests that were moved to the next stage."""


def explain_gain(trace: Trace, options: Options, rivals: Sequence[str] = RIVALS, policy: str = SOLE) -> Gain:
    """The gain of ``policy`` over the best of ``rivals`` on a trace, by cause.

    Raises:
        InputError: no rival, policies that finished different requests, or what `l4sim.experiment.compare` refuses.
    """
    if options.cost_model not in COST_MODELS:
        # What unequal lengths cost is what the bundled ones differ in.
        raise InputError(f"a gain is explained by the bundled cost models: accepted are {', '.join(COST_MODELS)}")
    if not rivals:
        raise InputError("a gain needs a rival to be over: none is named")
    setup = resolve(options)
    as_it_is = {run.policy: run for run in compare(trace, [policy, *rivals], setup)}
    means_s = _means_s(as_it_is)
    rival = min(rivals, key=means_s.__getitem__)

    equal = options if options.cost_model in _BLIND else replace(options, cost_model="mean")
    without_skew = resolve(equal)
    without_prefill = without_skew.each(lambda group: replace(group, cost=_FreePrompts(group.cost)))
    without_limit = without_prefill.each(
        lambda group: replace(group, engine=replace(group.engine, kv_blocks=group.engine.kv_blocks * _AMPLE))
    )

    total = 1 - means_s[policy] / means_s[rival]
    no_kernel = total if equal is options else _gain(trace, without_skew, policy, rival)
    no_prefill = _gain(trace, without_prefill, policy, rival)
    no_limit = _gain(trace, without_limit, policy, rival)
    moved = as_it_is[policy].migrations
    return Gain(
        policy=policy,
        rival=rival,
        normalized_latency_s=means_s,
        finished=_finished(as_it_is[policy]),
        total=total,
        kernel=total - no_kernel,
        isolation=no_kernel - no_prefill,
        memory=no_prefill - no_limit,
        balancing=no_limit,
        spread=_spread(as_it_is[policy].iterations),
        rival_spread=_spread(as_it_is[rival].iterations),
        handovers=int(((moved["kind"] == "handover") & (moved["status"] == "done")).sum()),
    )


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


def _gain(trace: Trace, setup: Setup, policy: str, rival: str) -> float:
    means_s = _means_s({run.policy: run for run in compare(trace, [policy, rival], setup)})
    return 1 - means_s[policy] / means_s[rival]


def _means_s(runs: Mapping[str, Run]) -> dict[str, float]:
    """Mean normalized latency by policy.

    Raises:
        InputError: the policies finished different requests, or none.
    """
    statuses = {policy: run.requests["status"] for policy, run in runs.items()}
    first = next(iter(statuses))
    for policy, status in statuses.items():
        if not status.equals(statuses[first]):
            raise InputError(f"{first} and {policy} finished different requests: a gain needs the same traffic")
    if not _finished(runs[first]):
        raise InputError("no request finished: there is no latency to compare")
    return {policy: float(run.requests["normalized_latency_s"].mean()) for policy, run in runs.items()}


def _finished(run: Run) -> int:
    return int((run.requests["status"] == "finished").sum())


def _spread(iterations: DataFrame) -> float:
    """Time-weighted spread of lengths over segments with at least two decoding requests; 0 if there are none."""
    table = iterations[iterations["decode_requests"] >= 2]
    if not len(table):
        return 0.0
    seconds = (table["end_s"] - table["start_s"]).to_numpy()
    mean_tokens = (table["context_tokens"] / table["decode_requests"]).to_numpy()
    return float((table["context_std_tokens"].to_numpy() / mean_tokens) @ seconds / seconds.sum())
