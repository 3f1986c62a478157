"""The Python API: eight names, also found in `l4sim` itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from l4sim.cost.profile import Profile, load_profile
from l4sim.experiment import Options, resolve, sample_demand, timed_plan
from l4sim.experiment import compare as run_policies
from l4sim.policies.defaults import COMPARED, SOLE
from l4sim.policies.l4.objective import Objective
from l4sim.policies.policy import PolicyChoice
from l4sim.results.plan_result import PlanResult
from l4sim.results.result import Result
from l4sim.specs.option import documented
from l4sim.specs.options import TRACE_DEFAULTS
from l4sim.sweeps.result import SweepResult
from l4sim.sweeps.runner import Report
from l4sim.sweeps.sweep import run_sweep
from l4sim.workload.load import load_trace as read_trace
from l4sim.workload.save import save_trace
from l4sim.workload.synth.named import synthesize_named
from l4sim.workload.trace import Trace
from l4sim.workload.transform import pace

__all__ = [
    "Cluster",
    "Profile",
    "Trace",
    "compare",
    "load_profile",
    "load_trace",
    "plan",
    "replay",
    "sweep",
    "synthesize",
]


@documented
@dataclass(frozen=True, slots=True)
class Cluster(Options):
    """Everything that a simulation depends on but the trace and the policy.

    ``Cluster(instances=16, model="llama-3.1-8b", profile="h200-flashinfer")``; the arguments are the command line's
    options. None leaves a choice to the profile, the model or vLLM's defaults.
    """


def load_trace(
    path: str | PathLike[str],
    *,
    format: str = TRACE_DEFAULTS.format,
    time_unit: str = TRACE_DEFAULTS.time_unit,
    tokens: str = TRACE_DEFAULTS.tokens,
    trace_block_size: int | None = None,
    dejitter_s: float | None = None,
    limit: int | None = None,
    rate_per_s: float | None = None,
    rate_scale: float | None = None,
    concurrency: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
) -> Trace:
    """The trace in a file of any known format (.csv, .jsonl, .json or .parquet, each also .gz).

    ``format``, ``time_unit``, ``tokens``, ``trace_block_size``, ``dejitter_s`` and ``limit`` (requests) are as in
    `l4sim.workload.load.load_trace`. The trace then gets ``rate_per_s`` arrivals per second, or ``rate_scale`` times
    its own, or is sent ``concurrency`` requests at a time (`with_concurrency` does the same to a trace at hand), and
    keeps the arrivals of the first ``duration_s`` seconds. ``seed`` is used where the file has no arrival
    times, which then are Poisson. ``Trace.warnings`` lists what was changed or guessed.

    Raises:
        InputError: anything that is not accepted, by file, line and field.
    """
    trace = read_trace(
        path,
        format=format,
        time_unit=time_unit,
        tokens=tokens,
        trace_block_size=trace_block_size,
        dejitter_s=dejitter_s,
        limit=limit,
    )
    return pace(
        trace, rate_per_s=rate_per_s, rate_scale=rate_scale, concurrency=concurrency, duration_s=duration_s, seed=seed
    )


def synthesize(
    lengths: str | None = None,
    *,
    prompt_lengths: str | None = None,
    output_lengths: str | None = None,
    lengths_from: Trace | None = None,
    correlation: float | None = None,
    requests: int | None = None,
    duration_s: float | None = None,
    arrivals: str | None = None,
    concurrency: int | None = None,
    turns: float | None = None,
    max_model_len: int | None = None,
    over_limit: Literal["clip", "drop"] | None = None,
    seed: int = 0,
    **parameters: Any,
) -> Trace:
    """A synthetic trace; the same arguments give the same one.

    ``synthesize("chat", rate_per_s=20, requests=1000)``. Lengths in tokens come from a preset
    (`l4sim.workload.synth.PRESETS`), from two distributions as text (``"lognormal:mu=7,sigma=1.1,max=8192"``), or from
    the rows of another trace. ``concurrency`` makes a closed loop of so many requests, or sessions, at a time: then
    there are no ``arrivals`` (default: Poisson). ``parameters`` are those of the arrival process (``rate_per_s``,
    ``cv``, ``on_s``, ...) and, with ``turns`` per session on average, of sessions (``think_s_mean``,
    ``system_tokens``, ``block_tokens``).
    ``max_model_len`` bounds prompt and output tokens together. Sources: each preset's own.

    Raises:
        InputError: arguments that are missing, unknown, out of range or do not go together.
    """
    return synthesize_named(
        lengths=lengths,
        prompt_lengths=prompt_lengths,
        output_lengths=output_lengths,
        lengths_from=None if lengths_from is None else lambda: lengths_from,
        correlation=correlation,
        requests=requests,
        duration_s=duration_s,
        arrivals=arrivals,
        concurrency=concurrency,
        turns=turns,
        max_model_len=max_model_len,
        over_limit=over_limit,
        seed=seed,
        parameters=parameters,
    )


def compare(trace: Trace, policies: Sequence[PolicyChoice] = COMPARED, cluster: Options | None = None) -> Result:
    """Replay a trace under several policies; the plan, where one is needed, is made once.

    A policy is named: one of `l4sim.policies.registry.POLICIES`, one that an installed package offers by an entry point
    of the group ``l4sim.policies``, or a ``"module:attribute"``. Or it is one's own: ``("mine", build)``, where
    ``build`` takes a `l4sim.policies.policy.Setting` and returns a `l4sim.policies.policy.Policy` for one run. A
    cluster's ``cost_model`` and ``engine_rules``, and the ``format`` of `load_trace`, are named likewise
    (`docs/extending.md`).

    Raises:
        InputError: an unknown policy, one named twice, or options that trace, model and profile do not allow.
    """
    setup = resolve(Cluster() if cluster is None else cluster)
    return Result(trace, setup, tuple(run_policies(trace, policies, setup)))


def replay(trace: Trace, policy: PolicyChoice = SOLE, cluster: Options | None = None) -> Result:
    """Replay a trace under one policy; raises like `compare`."""
    return compare(trace, [policy], cluster)


def plan(
    trace: Trace,
    cluster: Options | None = None,
    *,
    objective: str = "normalized-latency",
    ttft_slo_s: float | None = None,
    tpot_slo_s: float | None = None,
    stages: int | None = None,
) -> PlanResult:
    """L4's partition of the cluster's instances into length ranges, for the first part of a trace.

    ``objective`` is ``normalized-latency``, ``e2e``, or ``slo`` with limits in seconds; ``stages`` asks for so many.
    How much of the trace the plan may know is the cluster's ``plan_sample``.

    Raises:
        InputError: an unknown objective, a limit that it does not take, or more stages than there can be.
    """
    setup = resolve(Cluster() if cluster is None else cluster)
    made, planning_s = timed_plan(
        sample_demand(trace, setup), setup, objective=Objective(objective, ttft_slo_s, tpot_slo_s), stages=stages
    )
    return PlanResult(made, planning_s)


def sweep(
    grid: Mapping[str, Any],
    out: str | PathLike[str],
    *,
    trace: Trace | None = None,
    jobs: int = 1,
    executor: Executor | str | None = None,
    retry_failed: bool = False,
    slo: str | None = None,
    price_usd_per_gpu_hour: float | None = None,
    search: Literal["rate", "instances"] | None = None,
    report: Report | None = None,
) -> SweepResult:
    """Simulate every combination of a grid's values; or with ``search``, find each one's capacity.

    ``sweep({"policies": ["round-robin", "l4"], "rate_per_s": [10, 20], "seed": range(3)}, "runs/sweep", jobs=2)``.
    Keys are `load_trace`'s and `Cluster`'s arguments, ``policies``, ``trace`` (a path) and ``synth`` (a mapping of
    `synthesize`'s arguments); a value is one or a list. ``trace`` is a trace at hand, for all points. Policies are
    those that `compare` takes; one of one's own goes to other processes by reference where it can be imported there,
    and as a whole where cloudpickle is installed.

    Every point is written to ``out`` as it finishes; a second call with the same ``out`` runs only what is missing
    (and, with ``retry_failed``, what failed). ``jobs`` processes work on this machine (a script then needs the usual
    ``if __name__ == "__main__":``), or any executor, or by name ``"dask=ADDRESS"`` or ``"submitit"``, whose workers
    must find ``out`` and every file under the same path. ``report`` is called as points end.

    ``slo`` is ``"ttft_p99=2s,tpot_p99=50ms"`` or ``"ttft=2s,tpot=50ms,attainment=90%"``: it adds ``meets_slo``,
    attainment and goodput. ``search="rate"`` finds the highest rate that meets it, ``search="instances"`` the fewest
    instances. A price in USD adds the cost per million output tokens.

    Raises:
        InputError: what is not accepted, by key.
    """
    out = Path(out)
    if trace is not None:
        grid = {**grid, "trace": str(_saved(trace, out))}
    return run_sweep(
        grid,
        out,
        jobs=jobs,
        executor=executor,
        retry_failed=retry_failed,
        slo=slo,
        price_usd_per_gpu_hour=price_usd_per_gpu_hour,
        search=search,
        report=report,
    )


def _saved(trace: Trace, out: Path) -> Path:
    """The trace as a file, for workers to read."""
    out.mkdir(parents=True, exist_ok=True)
    path = out.resolve() / "trace.parquet"
    save_trace(trace, path)
    return path
