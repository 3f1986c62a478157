"""How good an assignment of requests to instances can be: the best one that a search finds who knows everything.

A search by simulation: each request is put on an instance for good, the trace is simulated, and an assignment is kept
if its mean normalized latency is lower. It begins at the best policy's assignment. Found is an upper bound of the least
possible latency under a static assignment (whoever migrates may be below it): the true distance is at least as large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.traffic import Recorded, Synthetic, at_load
from l4sim.experiment import Options, Setup, compare, resolve, run_built
from l4sim.policies.policy import Policy
from l4sim.policies.views import InstanceView, RequestView
from l4sim.results.run import Run
from l4sim.workload.trace import Trace

IntArray = NDArray[np.int64]
SIMULATIONS = 1500
"""Of one search, by default."""

# Small, so that so many simulations take a minute or two.
CASES: tuple[tuple[str, Synthetic | Recorded, float, dict[str, Any]], ...] = (
    ("lognormal 1.5 on 5", Synthetic(300, prompt_lengths="lognormal:mu=7.17,sigma=1.5,max=100000",
                                     output_lengths="lognormal:mu=5.2,sigma=1.0,max=4000"), 0.7, {"instances": 5}),
    ("sessions on 5", Synthetic(300, lengths="chat", turns=4.0,
                                parameters={"think_s_mean": 5.0, "system_tokens": 1024}), 0.7, {"instances": 5}),
)  # fmt: skip


class Assigned:
    """Places every request where a list says."""

    def __init__(self, instances: IntArray) -> None:
        self._instances = instances

    def route(self, request: RequestView, instances: Sequence[InstanceView]) -> int:
        """Return the position of the request's instance."""
        return int(self._instances[request.request])


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    start_s: float
    """Mean normalized latency that it began at."""
    best_s: float
    assignment: IntArray


def search(trace: Trace, setup: Setup, start: IntArray, simulations: int, seed: int = 0) -> Found:
    """Hill climbing from an assignment, shape ``[requests]``: a request moves, or two exchange instances.

    Requests that wait longest for their length are tried the more often. (Ours.)
    """
    rng = np.random.default_rng(seed)
    assignment, run = start.copy(), _simulated(trace, setup, start)
    best_s = start_s = _mean_s(run)
    for _ in range(simulations - 1):
        latency_s = np.nan_to_num(run.requests["normalized_latency_s"].to_numpy())
        request = int(rng.choice(len(trace), p=latency_s / latency_s.sum()))
        tried = assignment.copy()
        if rng.random() < 0.5:
            tried[request] = rng.integers(setup.instances)
        else:
            # With a neighbour in time: the two meet the same queues.
            other = int(np.clip(request + rng.integers(-20, 21), 0, len(trace) - 1))
            tried[request], tried[other] = assignment[other], assignment[request]
        if np.array_equal(tried, assignment):
            continue
        candidate = _simulated(trace, setup, tried)
        if _mean_s(candidate) < best_s:
            assignment, run, best_s = tried, candidate, _mean_s(candidate)
    return Found(start_s, best_s, assignment)


def bound_lines(policies: Sequence[str], seeds: int, simulations: int = SIMULATIONS) -> Iterator[str]:
    """Mean normalized latency under each policy, and how far it is above the best assignment found."""
    for name, traffic, load, given in CASES:
        setup = resolve(Options(**given))
        for seed in range(seeds):
            trace = at_load(traffic.trace(seed), setup, load)
            runs = compare(trace, policies, setup)
            means = {run.policy: _mean_s(run) for run in runs}
            best = min(runs, key=lambda run: means[run.policy])
            start = best.requests["first_instance"].to_numpy()
            found = search(trace, setup, start, simulations, seed)
            yield (
                f"{name}, seed {seed}: best assignment found {1e3 * found.best_s:.1f} ms, {simulations} simulations "
                f"from where {best.policy} sends requests ({1e3 * found.start_s:.1f} ms)"
            )
            for policy, mean_s in sorted(means.items(), key=lambda item: item[1]):
                yield f"  {policy:22s} {1e3 * mean_s:8.1f} ms  {100 * (mean_s / found.best_s - 1):+6.1f} %"


def _simulated(trace: Trace, setup: Setup, assignment: IntArray) -> Run:
    return run_built("assigned", Policy(Assigned(assignment)), trace, setup)


def _mean_s(run: Run) -> float:
    return float(run.requests["normalized_latency_s"].mean())
