"""What skipping over iterations costs in precision: each request's finish time with and without it.

    python -m benchmarks.fast_forward

Policies whose placement depends on exact times (ties between equal loads) may place requests elsewhere; from there on
single requests tell nothing about precision, and means do. `affine` is the control: there must be no difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from l4sim.bundled import folder
from l4sim.experiment import Options, compare, resolve
from l4sim.results.run import Run
from l4sim.workload.load import load_trace
from l4sim.workload.trace import Trace

if TYPE_CHECKING:
    from pandas import Series

# Traces' first requests, with instances for them.
WORKLOADS = (("long-context-mix.jsonl.gz", 300, 4), ("long-reasoning.jsonl.gz", 200, 4))
POLICIES = ("round-robin", "l4", "least-outstanding")
COST_MODELS = ("tile", "affine")


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Fast-forward against one iteration after the other."""

    finish_s: NDArray[np.float64]
    """Each request's finish time, how far apart; shape ``[requests]``."""
    share: NDArray[np.float64]
    """The same, in relation to its E2E; shape ``[requests]``."""
    mean_e2e: float
    """Relative change of the mean E2E."""
    placed_alike: float
    """Share of requests that began on the same instance."""
    segments: int
    """Rows of the iterations' table with fast-forward."""
    iterations: int


def difference(trace: Trace, policy: str, *, instances: int, cost_model: str = "tile") -> Difference:
    """Replay a trace twice and compare; every request must finish."""
    fast = _replay(trace, policy, instances, cost_model, fast_forward=True)
    slow = _replay(trace, policy, instances, cost_model, fast_forward=False)
    finish_s = np.abs((_finish_s(fast) - _finish_s(slow)).to_numpy(dtype=np.float64))
    e2e_s = slow.requests["e2e_s"]
    return Difference(
        finish_s,
        finish_s / e2e_s.to_numpy(dtype=np.float64),
        float(fast.requests["e2e_s"].mean() / e2e_s.mean() - 1),
        float((fast.requests["first_instance"] == slow.requests["first_instance"]).mean()),
        len(fast.iterations),
        int(slow.iterations["iterations"].sum()),
    )


def _replay(trace: Trace, policy: str, instances: int, cost_model: str, *, fast_forward: bool) -> Run:
    setup = resolve(Options(instances=instances, cost_model=cost_model, fast_forward=fast_forward))
    [run] = compare(trace, [policy], setup)
    assert (run.requests["status"] == "finished").all()
    return run


def _finish_s(run: Run) -> Series[float]:
    return run.requests["arrival_s"] + run.requests["e2e_s"]


def main() -> None:
    for file, limit, instances in WORKLOADS:
        trace = load_trace(folder("traces") / file, limit=limit)
        print(f"\n{limit} requests of {file} on {instances} instances: |difference in finish time|")
        print(
            f"{'cost':7}{'policy':19}{'p50 ms':>9}{'p99 ms':>10}{'max ms':>10}{'p99 % E2E':>11}{'max % E2E':>11}",
            end="",
        )
        print(f"{'mean E2E':>11}{'alike':>8}{'iterations':>12}{'segments':>10}")
        for cost_model in COST_MODELS:
            for policy in POLICIES:
                found = difference(trace, policy, instances=instances, cost_model=cost_model)
                p50, p99, longest = np.percentile(found.finish_s, (50, 99, 100)) * 1e3
                share_p99, share_max = np.percentile(found.share, (99, 100)) * 100
                print(
                    f"{cost_model:7}{policy:19}{p50:9.2f}{p99:10.2f}{longest:10.2f}{share_p99:11.3f}{share_max:11.3f}"
                    f"{found.mean_e2e * 100:+10.3f}%{found.placed_alike:8.1%}{found.iterations:12,}"
                    f"{found.segments:10,}"
                )


if __name__ == "__main__":
    main()
