"""Full load: the rate at which latency is a given multiple of an idle cluster's. **[ours]**

It means the same for any traffic, model and GPU, so that loads can be given as fractions of it. What a planner thinks
that fits would not do, as it differs by planner; nor would a burst's throughput, which its longest requests decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l4sim.errors import InputError
from l4sim.experiment import Options, compare, resolve
from l4sim.results.run import Run
from l4sim.sweeps.capacity import TOLERANCE, search_capacity
from l4sim.sweeps.points import Point, Row
from l4sim.workload.trace import Trace
from l4sim.workload.transform import scale_rate

SLOWDOWN = 3.0
POLICY = "vllm-dp-0.32"
IDLE_RATE_PER_S = 1e-3
"""So few arrivals that requests do not meet."""
# What search_capacity calls a rate is here a multiple of the trace's own.
_SEARCHED = "rate_per_s"


@dataclass(frozen=True, slots=True, eq=False)
class FullLoad:
    """The highest rate within a given slowdown, the run at that rate, and the same requests on an idle cluster."""

    rate_per_s: float
    """Open-loop arrivals: requests, or sessions."""
    full: Run
    """At that rate."""
    idle: Run
    """One request, or session, at a time."""

    @property
    def lifetimes(self) -> float:
        """How long requests arrive, in multiples of the longest E2E; several are needed for a steady state."""
        requests = self.full.requests
        return float((requests["arrival_s"].max() - requests["arrival_s"].min()) / requests["e2e_s"].max())


def full_load(
    trace: Trace, options: Options, *, slowdown: float = SLOWDOWN, policy: str = POLICY, tolerance: float = TOLERANCE
) -> FullLoad:
    """The highest rate at which mean normalized latency is at most ``slowdown`` times that of an idle cluster.

    The same requests arrive at every rate, their arrivals stretched; the rate is found by bisection from the trace's
    own, to within ``tolerance`` of it (see `l4sim.sweeps.capacity`). Means depend on the trace's length: beyond what a
    cluster can sustain, queues and latencies grow as long as requests arrive.

    Raises:
        InputError: a slowdown that is not above 1 or that the trace is too short to reach, a trace without rate, or
            what `l4sim.experiment.compare` refuses.
    """
    if not slowdown > 1:
        raise InputError(f"the slowdown is {slowdown:g}, accepted is a number above 1")
    arrival_s = trace.arrival_s[trace.after < 0]
    own_rate_per_s = (len(arrival_s) - 1) / float(np.ptp(arrival_s)) if np.ptp(arrival_s) > 0 else 0.0
    if not own_rate_per_s:
        raise InputError(f"{trace.name}: all requests arrive at once: give them a rate, which the search begins with")
    setup = resolve(options)

    def run_at(rate_scale: float, policy: str) -> Run:
        [run] = compare(scale_rate(trace, rate_scale), [policy], setup)
        return run

    idle = run_at(IDLE_RATE_PER_S / own_rate_per_s, POLICY)
    limit_s = slowdown * _mean_s(idle)
    runs: dict[float, Run] = {}

    def evaluate(points: Sequence[Point]) -> list[Row]:
        rows: list[Row] = []
        for point in points:
            rate_scale = float(point.settings[_SEARCHED] or 0)
            runs[rate_scale] = run_at(rate_scale, policy)
            rows.append({"status": "done", "error": "", "meets_slo": _mean_s(runs[rate_scale]) <= limit_s})
        return rows

    slo = f"normalized_latency_mean={limit_s!r}s"
    [found] = search_capacity({"policy": [policy]}, "rate", evaluate, slo=slo, tolerance=tolerance).to_dict("records")
    if found["error"]:
        raise InputError(
            f"{trace.name}: {len(trace):,} requests never reach {slowdown:g} times the latency of an idle cluster, "
            "however fast they come: give more of them"
        )
    return FullLoad(found[_SEARCHED] * own_rate_per_s, runs[found[_SEARCHED]], idle)


def arriving_tokens_per_s(run: Run) -> float:
    """Output tokens per second while requests arrive, from the first arrival to the last.

    Unlike throughput over the makespan, which the longest request decides, it says what a cluster sustains. A request's
    tokens count as evenly spread between its first and its last one.
    """
    requests = run.requests[run.requests["status"] == "finished"]
    begin_s, end_s = run.requests["arrival_s"].min(), run.requests["arrival_s"].max()
    first_s = requests["arrival_s"] + requests["ttft_s"]
    decoding_s = (requests["e2e_s"] - requests["ttft_s"]).clip(lower=np.finfo(float).tiny)
    share = ((end_s - first_s) / decoding_s).clip(0, 1)
    return float((requests["output_tokens"] * share).sum() / (end_s - begin_s))


def _mean_s(run: Run) -> float:
    """Mean normalized latency of the requests that finished."""
    return float(run.requests["normalized_latency_s"].mean())
