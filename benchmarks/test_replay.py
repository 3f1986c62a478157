"""How fast traces are replayed: requests per second of wall time, on one core. Run with `make bench`.

The Azure conversation trace is read from the shared data (`L4SIM_SHARED`); its figures are for ten times its rate on 16
instances of llama-3.1-8b. Growth is measured on synthetic chat.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from l4sim.experiment import Options, plan, resolve, run_policy, sample_demand
from l4sim.policies.plan import GivenPlan
from l4sim.workload.load import load_trace
from l4sim.workload.synth import synthesize
from l4sim.workload.synth.arrivals import Poisson
from l4sim.workload.synth.presets import preset
from l4sim.workload.transform import scale_rate

SHARED = Path(os.environ.get("L4SIM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
AZURE = SHARED / "traces" / "azure_2023_conv.csv.gz"
MOONCAKE = SHARED / "traces" / "mooncake_synthetic.jsonl.gz"
L4SIM = [sys.executable, "-m", "l4sim"]


def note_rate(benchmark, requests):
    """Print requests per second beside the seconds."""
    if benchmark.stats is not None:  # None where benchmarks are disabled
        benchmark.extra_info["requests_per_s"] = round(requests / benchmark.stats.stats.median)
        print(f"\n{benchmark.name}: {benchmark.extra_info['requests_per_s']:,} requests/s (median)")


@pytest.mark.parametrize("policy", ["round-robin", "l4"])
@pytest.mark.parametrize("cost_model", ["affine", "tile"])
def test_azure_times_ten_in_the_replay_itself(benchmark, cost_model, policy):
    if not AZURE.exists():
        pytest.skip(f"no {AZURE}")
    trace = scale_rate(load_trace(AZURE), 10)
    setup = resolve(Options(cost_model=cost_model))
    made = plan(sample_demand(trace, setup), setup)
    benchmark.pedantic(run_policy, (policy, trace, setup, GivenPlan(lambda: made)), rounds=5, warmup_rounds=1)
    note_rate(benchmark, len(trace))


@pytest.mark.parametrize("policy", ["round-robin", "l4"])
def test_azure_times_ten_as_a_whole_process(benchmark, tmp_path, policy):
    if not AZURE.exists():
        pytest.skip(f"no {AZURE}")
    command = [
        *L4SIM,
        "replay",
        str(AZURE),
        "--rate-scale",
        "10",
        "--policy",
        policy,
        "--no-plots",
        "--out",
        str(tmp_path),
    ]
    benchmark.pedantic(subprocess.run, (command,), {"check": True, "capture_output": True}, rounds=5, warmup_rounds=1)


def test_mooncake_comparison_as_a_whole_process(benchmark, tmp_path):
    if not MOONCAKE.exists():
        pytest.skip(f"no {MOONCAKE}")
    policies = ["--policies", "round-robin,least-outstanding,l4"]
    command = [*L4SIM, "compare", str(MOONCAKE), *policies, "--out", str(tmp_path)]
    benchmark.pedantic(subprocess.run, (command,), {"check": True, "capture_output": True}, rounds=3)


@pytest.mark.parametrize(
    "command", [[*L4SIM, "--help"], [sys.executable, "-c", "import l4sim"]], ids=["help", "import"]
)
def test_start_up(benchmark, command):
    benchmark.pedantic(subprocess.run, (command,), {"check": True, "capture_output": True}, rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("requests", [50_000, 1_000_000])
def test_growth(benchmark, requests):
    trace = synthesize(preset("sharegpt-like").lengths, Poisson(60.0), seed=1, requests=requests)
    setup = resolve(Options(cost_model="affine"))
    benchmark.pedantic(run_policy, ("least-outstanding", trace, setup), rounds=1)
    note_rate(benchmark, requests)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak_gib:.2f} GiB")
