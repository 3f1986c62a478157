"""How well the planner chooses: its partition, simulated, against the best of an exhaustive search by simulation.

    python -m benchmarks.planner_quality [WORKLOAD ...]

Searched are the two-stage partitions over a grid of boundaries and counts, and the three-stage ones over every other
boundary. Traces that the project does not ship are
looked for in the folder that L4SIM_SHARED names (default ../shared) and left out, saying so, where they are absent.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from l4sim.bundled import folder
from l4sim.experiment import Options, Setup, plan, resolve, run_policy, sample_demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, StageForecast
from l4sim.policies.plan import GivenPlan, Plan, Stage
from l4sim.workload import transform
from l4sim.workload.load import load_trace
from l4sim.workload.trace import Trace

# The partition alone: requests are handed over as they grow, and no other part of L4 is at work.
POLICY = "l4:handover"


@dataclass(frozen=True, slots=True)
class Workload:
    """A trace's first requests at some rate, on some instances."""

    name: str
    file: str
    """In the folder of bundled traces, or in the shared one's ``traces``."""
    limit: int
    rate_scale: float = 1.0
    dejitter_s: float | None = None
    options: dict[str, Any] = field(default_factory=lambda: {"instances": 8})

    def path(self) -> Path:
        bundled = folder("traces") / self.file
        if bundled.is_file():
            return bundled
        shared = os.environ.get("L4SIM_SHARED", Path(__file__).resolve().parents[1] / ".." / "shared")
        return Path(shared) / "traces" / self.file

    def load(self) -> tuple[Trace, Setup]:
        trace = load_trace(self.path(), limit=self.limit, dejitter_s=self.dejitter_s)
        # The planner is to be judged by its model, not by the luck of a sample.
        return transform.scale_rate(trace, self.rate_scale), resolve(Options(plan_sample=1.0, **self.options))


# Rates at which the longest answers take a small part of the trace's time, so that there is a steady state to plan for.
FOUR = {"instances": 4}
AGENTS = "weka_agentic_mooncake512_dev.jsonl.gz"
AGENTIC = {"instances": 16, "model": "qwen2.5-14b-1m"}
WORKLOADS = (
    Workload("mix, light", "long-context-mix.jsonl.gz", 1500, 0.5),
    Workload("mix, heavy", "long-context-mix.jsonl.gz", 1500, 0.7),
    Workload("mooncake synthetic, light", "mooncake_synthetic.jsonl.gz", 1000, dejitter_s=3.0),
    Workload("mooncake synthetic, heavy", "mooncake_synthetic.jsonl.gz", 1000, 1.5, dejitter_s=3.0),
    Workload("agentic", AGENTS, 1200, options=AGENTIC),
    Workload("agentic, lengths alone", AGENTS, 1200, options=AGENTIC | {"prefix_affinity": False}),
    Workload("DeepSeek-R1 reasoning", "servegen_deepseek_r1_peak20min_sampled.csv.gz", 2500, 0.5, options=FOUR),
    Workload("long reasoning", "long-reasoning.jsonl.gz", 1000, 2.0, options=FOUR),
    Workload("chat", "azure_2023_conv.csv.gz", 1500, 6.0),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    planned: Plan
    predicted_s: float
    planned_s: float
    best: Plan
    best_s: float
    searched: int

    @property
    def regret(self) -> float:
        """By how much the planned partition is slower than the best one searched."""
        return self.planned_s / self.best_s - 1


def judge(trace: Trace, setup: Setup) -> Verdict:
    made = plan(sample_demand(trace, setup), setup)
    searched = [(simulated_s(trace, setup, candidate), candidate) for candidate in candidates(trace, setup)]
    best_s, best = min(searched, key=lambda pair: pair[0])
    return Verdict(made.plan, made.value, simulated_s(trace, setup, made.plan), best, best_s, len(searched))


def candidates(trace: Trace, setup: Setup) -> Iterator[Plan]:
    """Two- and three-stage partitions over powers of two that have requests on both sides."""
    instances, longest = setup.instances, setup.engine.max_model_len
    total = trace.prompt_tokens + trace.output_tokens
    powers = [2**exponent for exponent in range(8, 20) if 2**exponent < longest]
    bounds = [bound for bound in powers if (total < bound).mean() > 0.03 and (total > bound).mean() > 0.005]
    step = 1 if instances <= 8 else 2
    for bound in bounds:
        for first in range(1, instances, step):
            yield plan_of((0, bound, longest), (first, instances - first))
    for low, high in combinations(bounds[::-2][::-1], 2):
        for ends in combinations(range(step, instances, step * step), 2):
            counts = tuple(b - a for a, b in pairwise((0, *ends, instances)))
            yield plan_of((0, low, high, longest), counts)


def plan_of(bounds_tokens: tuple[int, ...], counts: tuple[int, ...]) -> Plan:
    ends = np.cumsum((0, *counts)).tolist()
    return Plan(
        tuple(
            Stage(lo, hi, tuple(range(*span)))
            for (lo, hi), span in zip(pairwise(bounds_tokens), pairwise(ends), strict=True)
        )
    )


def simulated_s(trace: Trace, setup: Setup, chosen: Plan) -> float:
    """Mean normalized latency of finished requests."""
    run = run_policy(POLICY, trace, setup, GivenPlan(lambda: without_forecast(chosen)))
    return float(run.requests["normalized_latency_s"].mean())


def without_forecast(chosen: Plan) -> Partition:
    """A plan that nobody has made predictions for."""
    unknown = StageForecast(**dict.fromkeys((field.name for field in fields(StageForecast)), math.nan))
    return Partition(chosen, (unknown,) * len(chosen.stages), Objective(), math.nan, math.nan)


def describe(chosen: Plan) -> str:
    return ", ".join(f"<{stage.hi_tokens:,}: {len(stage.instances)}" for stage in chosen.stages)


def main(names: list[str]) -> None:
    unknown = set(names) - {workload.name for workload in WORKLOADS}
    if unknown:
        sys.exit(f"no workload {', '.join(sorted(unknown))}: accepted are {', '.join(w.name for w in WORKLOADS)}")
    for workload in WORKLOADS:
        if names and workload.name not in names:
            continue
        if not workload.path().is_file():
            print(f"{workload.name}: left out, there is no {workload.path()}")
            continue
        start = time.perf_counter()
        verdict = judge(*workload.load())
        print(
            f"{workload.name}: planned {verdict.planned_s * 1e3:.2f} ms/token (predicted "
            f"{verdict.predicted_s * 1e3:.2f}), best of {verdict.searched} searched {verdict.best_s * 1e3:.2f}: "
            f"{verdict.regret:+.1%}  ({time.perf_counter() - start:.0f} s)\n"
            f"  planned {describe(verdict.planned)}\n  best    {describe(verdict.best)}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
