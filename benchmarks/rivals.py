"""Where L4 wins and where it loses: mean normalized latency beside its rivals' over loads and length mixes.

    python -m benchmarks.rivals [PROFILE [TRAFFIC ...]]

Figures are geometric means over seeds for synthetic traces. Traces that the project does not ship are looked for in the
folder that L4SIM_SHARED names (default ../shared) and left out, saying so, where they are absent. The table is in
docs/l4.md.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from l4sim.experiment import Options, compare, resolve
from l4sim.policies.defaults import COMPARED
from l4sim.workload.load import load_trace
from l4sim.workload.synth.named import synthesize_named
from l4sim.workload.trace import Trace
from l4sim.workload.transform import pace

POLICIES = COMPARED
SHARED = Path(os.environ.get("L4SIM_SHARED", Path(__file__).resolve().parents[1] / ".." / "shared")) / "traces"
BUNDLED = Path(__file__).resolve().parents[1] / "traces"
MEAN_PROMPT_TOKENS, MEAN_OUTPUT_TOKENS = 4000, 300


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of traffic at one load."""

    name: str
    instances: int
    traces: Callable[[], Iterator[Trace]]


def lognormal(sigma: float, rate_per_s: float) -> Traffic:
    """Prompts and answers of given means, prompts with this spread, over three seeds."""
    output_sigma = min(sigma, 1.0)
    prompt_mu = math.log(MEAN_PROMPT_TOKENS) - sigma**2 / 2
    output_mu = math.log(MEAN_OUTPUT_TOKENS) - output_sigma**2 / 2

    def traces() -> Iterator[Trace]:
        for seed in (1, 2, 3):
            yield synthesize_named(
                prompt_lengths=f"lognormal:mu={prompt_mu},sigma={sigma},max=100000",
                output_lengths=f"lognormal:mu={output_mu},sigma={output_sigma},max=4000",
                requests=1500,
                seed=seed,
                parameters={"rate_per_s": rate_per_s},
            )

    return Traffic(f"lognormal {sigma}, {rate_per_s:g}/s", 8, traces)


def mix(rate_per_s: float) -> Traffic:
    """Chat and documents, over three seeds."""

    def traces() -> Iterator[Trace]:
        for seed in (20, 21, 22):
            yield synthesize_named(
                lengths="long-context-mix", requests=1000, seed=seed, parameters={"rate_per_s": rate_per_s}
            )

    return Traffic(f"mix, {rate_per_s:g}/s", 16, traces)


def recorded(
    path: Path,
    limit: int,
    instances: int = 8,
    *,
    rate_scale: float | None = None,
    rate_per_s: float | None = None,
    dejitter_s: float | None = None,
) -> Traffic:
    """A trace's first requests."""

    def traces() -> Iterator[Trace]:
        if path.exists():
            yield pace(
                load_trace(path, limit=limit, dejitter_s=dejitter_s), rate_scale=rate_scale, rate_per_s=rate_per_s
            )

    pace_of_it = f"x{rate_scale:g}" if rate_per_s is None else f"{rate_per_s:g}/s"
    return Traffic(f"{path.name.split('.')[0][:20]}, {pace_of_it}", instances, traces)


def workloads() -> Iterator[Traffic]:
    """Each kind of traffic at a moderate and a high load; the bundled traces at one."""
    for sigma, moderate, high in ((0.3, 40, 58), (0.8, 36, 52), (1.2, 30, 45), (1.8, 22, 34)):
        yield lognormal(sigma, moderate)
        yield lognormal(sigma, high)
    for rate_per_s in (7, 11):
        yield mix(rate_per_s)
    for scale in (1.0, 1.7):
        yield recorded(SHARED / "mooncake_synthetic.jsonl.gz", 1200, rate_scale=scale, dejitter_s=3.0)
    for scale in (10, 25):
        yield recorded(SHARED / "azure_2023_conv.csv.gz", 3000, 16, rate_scale=scale)
    for scale in (10, 30):
        yield recorded(SHARED / "azure_2023_code.csv.gz", 3000, 16, rate_scale=scale)
    for scale in (0.5, 1.0):
        yield recorded(SHARED / "servegen_deepseek_r1_peak20min_sampled.csv.gz", 2000, rate_scale=scale)
    for rate_per_s in (40, 80):
        yield recorded(SHARED / "vidur_arxiv_summarization.csv.gz", 2000, rate_per_s=rate_per_s)
    yield recorded(BUNDLED / "long-context-mix.jsonl.gz", 1200, 16, rate_scale=1.0)
    yield recorded(BUNDLED / "chat-sessions.jsonl.gz", 1500, rate_scale=1.0)
    yield recorded(BUNDLED / "long-reasoning.jsonl.gz", 800, rate_scale=2.0)


def measure(traffic: Traffic, profile: str) -> list[float] | None:
    """Mean normalized latency by policy, in ms; None if the trace is absent."""
    setup = resolve(Options(instances=traffic.instances, profile=profile))
    seeds = [
        [1e3 * run.requests["normalized_latency_s"].mean() for run in compare(trace, POLICIES, setup)]
        for trace in traffic.traces()
    ]
    return np.exp(np.log(seeds).mean(axis=0)).tolist() if seeds else None


def main(profile: str = "h200-flashinfer", *names: str) -> None:
    """Print a row for each kind of traffic whose name begins with one of ``names``, or for all."""
    print(f"{'traffic':30s}", *(f"{policy:>19s}" for policy in POLICIES))
    for traffic in workloads():
        if names and not traffic.name.startswith(names):
            continue
        latencies_ms = measure(traffic, profile)
        if latencies_ms is None:
            print(f"{traffic.name:30s} left out: no such file", flush=True)
            continue
        cells = (f"{ms:9.2f} ({100 * (ms / latencies_ms[0] - 1):+6.1f}%)" for ms in latencies_ms)
        print(f"{traffic.name:30s}", *cells, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
