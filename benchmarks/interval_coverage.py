"""Whether one run's 95 % intervals hold what other runs of the same traffic give: they should in 95 of 100.

    python -m benchmarks.interval_coverage [SEEDS]

For each case the change of a policy against another over many seeds: the standard deviation of it over the seeds, that
which single runs tell of themselves (half of their intervals / Student's factor, about 2), and the share of the runs
whose interval holds the mean over all seeds.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from l4sim.experiment import Options, compare, resolve
from l4sim.results.changes import METRICS, compare_runs
from l4sim.workload.synth.named import synthesize_named

POLICIES = ("least-outstanding", "least-harm")
_MIX = {"lengths": "long-context-mix"}
_LOGNORMAL = {
    "prompt_lengths": "lognormal:mu=6.5,sigma=1.2,max=30000",
    "output_lengths": "lognormal:mu=4.5,sigma=0.8,max=1000",
}
# Name, instances, lengths, rate per second, requests. The busy one lasts twice its P99 E2E.
CASES: tuple[tuple[str, int, dict[str, str], float, int], ...] = (
    ("mix, calm", 4, _MIX, 1.5, 400),
    ("mix, busy", 4, _MIX, 2.5, 400),
    ("lognormal", 8, _LOGNORMAL, 30.0, 1200),
)


def main(seeds: str = "30") -> None:
    print(f"{'case':12s} {'figure':26s} {'mean':>7s} {'sd':>7s} {'told sd':>8s} {'held':>5s} {'no interval':>12s}")
    for name, instances, lengths, rate_per_s, requests in CASES:
        setup = resolve(Options(instances=instances))
        found = []
        for seed in range(int(seeds)):
            given: dict[str, Any] = {**lengths, "requests": requests, "seed": seed}
            trace = synthesize_named(**given, parameters={"rate_per_s": rate_per_s})
            compared = compare_runs(compare(trace, POLICIES, setup))
            assert compared is not None
            found.append(compared)
        for metric in METRICS:
            changes = [each.change(POLICIES[1], metric) for each in found]
            logs = np.log1p([each.change for each in changes])
            sure = [each for each in changes if not each.why]
            told = np.mean([(np.log1p(each.high) - np.log1p(each.low)) / 4 for each in sure]) if sure else np.nan
            held = np.mean([each.low <= np.expm1(logs.mean()) <= each.high for each in sure]) if sure else np.nan
            missing = len(changes) - len(sure)
            print(
                f"{name:12s} {metric.words:26s} {np.expm1(logs.mean()):+7.1%} {logs.std(ddof=1):7.3f} {told:8.3f} "
                f"{held:5.0%} {missing:12d}",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
