"""Composition: from options and a trace to the runs of one policy after the other."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l4sim import __version__
from l4sim.cost.affine import fit_affine
from l4sim.cost.build import build_cost
from l4sim.cost.model import CostModel
from l4sim.cost.profile import Profile, load_profile
from l4sim.engine.config import EngineConfig
from l4sim.errors import InputError
from l4sim.policies.l4.affinity import Affinity, Prices
from l4sim.policies.l4.demand import Demand, geometric_edges, measure_demand
from l4sim.policies.l4.objective import Objective
from l4sim.policies.l4.partition import Partition, partition, runner_ups
from l4sim.policies.l4.qoe import Capacity
from l4sim.policies.l4.reuse import Reuse, measure_reuse, prefix_uses
from l4sim.policies.registry import Policy, PolicyChoice, Setting, build_policy, policy_name
from l4sim.simulator import Rules, SimulationResult, simulate
from l4sim.simulator.cluster import REQUEST_STATUSES, shared_prefix_ids
from l4sim.simulator.executor import Executor
from l4sim.simulator.migration import KINDS, REASONS, STATUSES
from l4sim.specs.failure import Failure, parse_failures
from l4sim.specs.gpu import GPU
from l4sim.specs.link import Link, load_link
from l4sim.specs.memory import kv_blocks
from l4sim.specs.model import Model, load_model
from l4sim.specs.placement import Placement
from l4sim.workload.arrange import chain_arrival_s
from l4sim.workload.histogram import read_histogram
from l4sim.workload.trace import FloatArray, IntArray, Trace

if TYPE_CHECKING:
    from l4sim.results.run import Run


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that a run depends on but the trace and the policy, as the command line names it.

    None leaves a choice to the profile, the model or vLLM's defaults for such a GPU; `resolve` makes it.
    """

    instances: int = 16
    model: str = "llama-3.1-8b"
    profile: str = "h200-sxm"
    kernel: str | None = None
    cost_model: str = "tile"
    tensor_parallel: int = 1
    gpus_per_node: int = 8
    intra_link: str | None = None
    inter_link: str = "network-400g"
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_size: int = 16
    kv_blocks: int | None = None
    prefix_caching: bool = True
    reserve_full_prompt: bool = True
    async_scheduling: bool = True
    fast_forward: bool = True
    plan_sample: float = 0.2
    prefix_affinity: bool = True
    plan_histogram: Path | None = None
    failures: str | None = None
    """Instances that die: ``3@120s``, several separated by commas."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """Options made concrete: everything that `run_policy` needs."""

    options: Options
    model: Model
    profile: Profile
    cluster: Placement
    engine: EngineConfig
    cost: CostModel
    failures: tuple[Failure, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What was resolved, enough to repeat the run."""
        return {
            "l4sim": __version__,
            "options": self.options,
            "model": self.model,
            "profile": {
                "name": self.profile.name,
                "basis": self.profile.basis,
                "sha256": self.profile.content_hash,
                "kernel": self.options.kernel or self.profile.default_kernel,
                "host_overhead_s": self.profile.host_overhead_s,
            },
            "cluster": self.cluster,
            "engine": self.engine,
        }


def resolve(options: Options) -> Setup:
    """Load model and profile, and settle what the options left open.

    Raises:
        InputError: an unknown name, a value out of range, a model that does not fit the GPU.
    """
    model = load_model(options.model)
    profile = load_profile(options.profile)
    max_num_seqs, max_num_batched_tokens = _default_batching(profile.gpu)
    max_num_seqs = options.max_num_seqs or max_num_seqs
    max_num_batched_tokens = options.max_num_batched_tokens or max(max_num_batched_tokens, max_num_seqs)
    if not 0 < options.plan_sample <= 1:
        raise InputError(f"--plan-sample must be above 0 and at most 1, not {options.plan_sample}")
    if options.max_model_len is not None and options.max_model_len > model.max_model_len:
        raise InputError(
            f"--max-model-len {options.max_model_len} exceeds what {model.name} was made for: {model.max_model_len}"
        )
    engine = EngineConfig(
        kv_blocks=options.kv_blocks
        or kv_blocks(
            model,
            profile.gpu,
            options.tensor_parallel,
            utilization=options.gpu_memory_utilization,
            block_tokens=options.block_size,
            max_num_batched_tokens=max_num_batched_tokens,
            max_num_seqs=max_num_seqs,
        ),
        max_model_len=options.max_model_len or model.max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        block_tokens=options.block_size,
        prefix_caching=options.prefix_caching,
        reserve_full_prompt=options.reserve_full_prompt,
        async_scheduling=options.async_scheduling,
    )
    cost = build_cost(
        profile,
        model,
        tensor_parallel=options.tensor_parallel,
        kernel=options.kernel,
        cost_model=options.cost_model,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
    )
    cluster = Placement(
        options.instances,
        options.tensor_parallel,
        options.gpus_per_node,
        _intra_link(options, profile.gpu),
        load_link(options.inter_link),
    )
    failures = () if options.failures is None else parse_failures(options.failures, options.instances)
    return Setup(options, model, profile, cluster, engine, cost, failures)


def _default_batching(gpu: GPU) -> tuple[int, int]:
    """vLLM's max_num_seqs and max_num_batched_tokens for serving: `EngineArgs._set_default_args` (0.19)."""
    large = gpu.memory_bytes >= 70 * 2**30 and "a100" not in gpu.name.lower()
    return (1024, 8192) if large else (256, 2048)


def _intra_link(options: Options, gpu: GPU) -> Link:
    if options.intra_link is not None:
        return load_link(options.intra_link)
    return Link(f"{gpu.name} node link", gpu.link_bytes_per_s, load_link("nvlink").latency_s)


def sample_demand(trace: Trace, setup: Setup) -> Demand:
    """The demand that a plan may know: the histogram that the options name, else that of the trace's first part.

    All of the trace where that part is under 50 requests. A closed-loop turn counts as arriving with its session's
    first one: the rate is what matters here. Requests that the engine would reject are left out.

    Raises:
        InputError: the histogram cannot be read, or the sample has no rate.
    """
    if setup.options.plan_histogram is not None:
        return histogram_demand(setup.options.plan_histogram, setup)
    count = _sample_size(trace, setup)
    prompt, output = trace.prompt_tokens[:count], trace.output_tokens[:count]
    arrival_s = chain_arrival_s(trace)[:count]
    duration_s = float(np.ptp(arrival_s))
    rates = np.full(count, 1.0 / duration_s if duration_s > 0 else np.nan)
    if trace.prefix is None or not setup.engine.prefix_caching:
        return _demand(prompt, output, rates, setup, arrival_s=arrival_s)
    uses = prefix_uses(prompt, trace.prefix)
    delay_s = trace.delay_s[:count]
    interval_s = np.where(np.isnan(delay_s), arrival_s - arrival_s[uses.earlier], delay_s)
    edges = geometric_edges(setup.engine.max_model_len)
    reuse = measure_reuse(uses, interval_s, prompt, rates, edges, followed=setup.options.prefix_affinity)
    return _demand(prompt, output, rates, setup, prompt - uses.tokens, arrival_s, reuse)


def histogram_demand(path: Path, setup: Setup) -> Demand:
    """The demand of a histogram in a CSV file.

    Raises:
        InputError: the histogram cannot be read, or no row of it has a rate and fits the engine.
    """
    given = read_histogram(path)
    return _demand(given.prompt_tokens, given.output_tokens, given.requests_per_s, setup)


def _demand(
    prompt: IntArray,
    output: IntArray,
    rates: FloatArray,
    setup: Setup,
    new_prompt: IntArray | None = None,
    arrival_s: FloatArray | None = None,
    reuse: Reuse | None = None,
) -> Demand:
    return measure_demand(
        prompt,
        output,
        rates,
        geometric_edges(setup.engine.max_model_len),
        new_prompt,
        arrival_s=arrival_s,
        reuse=reuse,
        kv_tokens=_capacity(setup).kv_tokens,
    )


def _capacity(setup: Setup) -> Capacity:
    engine = setup.engine
    return Capacity(engine.kv_blocks * engine.block_tokens, engine.max_num_seqs, engine.max_num_batched_tokens)


def _sample_size(trace: Trace, setup: Setup) -> int:
    """How many of the trace's first requests a plan may know."""
    return max(int(len(trace) * setup.options.plan_sample), min(50, len(trace)))


def plan(demand: Demand, setup: Setup, *, objective: Objective | None = None, stages: int | None = None) -> Partition:
    """The partition of the cluster's instances for a demand.

    Raises:
        InputError: more stages than there can be.
    """
    return partition(demand, setup.cost, _capacity(setup), setup.options.instances, objective=objective, stages=stages)


def plan_runner_ups(demand: Demand, setup: Setup, made: Partition) -> tuple[Partition, ...]:
    """The best plans with other numbers of stages."""
    return runner_ups(demand, setup.cost, _capacity(setup), setup.options.instances, than=made)


Progress = Callable[[str, float, int], None]
"""Policy, simulated seconds, requests ended."""


def run_policy(
    choice: PolicyChoice,
    trace: Trace,
    setup: Setup,
    partition: Callable[[], Partition],
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Run:
    """Replay the trace under one policy; on live instances, if an executor stands in for the cost model.

    Raises:
        InputError: no such policy, or the trace does not suit it or the engine.
    """
    options, name = setup.options, policy_name(choice)
    policy = policy_for(choice, trace, setup, partition)
    result = simulate(
        trace,
        router=policy.router,
        agents=policy.agents,
        coordinator=policy.coordinator,
        cluster=setup.cluster,
        engine=setup.engine,
        cost=setup.cost,
        kv_bytes_per_token=setup.model.kv_bytes_per_token,
        rules=Rules(fast_forward=options.fast_forward, failures=setup.failures),
        progress=None if progress is None else lambda time_s, ended: progress(name, time_s, ended),
        executor=executor,
    )
    return tables(name, trace, result, policy, options.instances)


def policy_for(choice: PolicyChoice, trace: Trace, setup: Setup, partition: Callable[[], Partition]) -> Policy:
    """A policy as a run of this trace needs it.

    Raises:
        InputError: no such policy, or the trace does not suit it.
    """
    return build_policy(choice, _setting(trace, setup, partition))


def _setting(trace: Trace, setup: Setup, partition: Callable[[], Partition]) -> Setting:
    count, block_tokens = _sample_size(trace, setup), setup.engine.block_tokens
    id_tokens = shared_prefix_ids(trace, block_tokens)[1] if setup.engine.prefix_caching else block_tokens
    follow = setup.options.prefix_affinity and setup.engine.prefix_caching and trace.prefix is not None

    def affinity() -> Affinity:
        engine, mean_output = setup.engine, float(trace.output_tokens[:count].mean())
        capacity_tokens = engine.kv_blocks * engine.block_tokens * setup.options.instances
        return Affinity(_prices(setup, mean_output), id_tokens, capacity_tokens)

    return Setting(
        setup.options.instances,
        setup.options.seed,
        partition,
        sample_lengths=lambda: (trace.prompt_tokens[:count], trace.output_tokens[:count]),
        output_tokens=trace.output_tokens.tolist,
        prefix_id_tokens=id_tokens,
        affinity=affinity if follow else None,
    )


def _prices(setup: Setup, output_tokens: float) -> Prices:
    """What the cost model charges on average, for policies that weigh one thing against another."""
    engine = setup.engine
    affine = fit_affine(
        setup.cost,
        max_sequences=engine.max_num_seqs,
        max_tokens=engine.max_num_batched_tokens,
        max_context_tokens=engine.max_model_len,
    )
    return Prices(
        affine.per_prefill_token_s,
        affine.per_prefill_pair_s,
        affine.per_sequence_s,
        affine.per_context_token_s,
        output_tokens,
    )


def compare(
    trace: Trace,
    policies: Sequence[PolicyChoice],
    setup: Setup,
    progress: Progress | None = None,
    executor: Callable[[str], Executor] | None = None,
) -> list[Run]:
    """Replay the trace under each policy in turn; the plan, where one is needed, is made once.

    ``executor`` gives each policy's run what stands in for the cost model, if anything does.

    Raises:
        InputError: an unknown policy or one named twice, or the trace does not suit the engine.
    """
    names = [policy_name(choice) for choice in policies]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"policy '{name}' is named twice")
    made: list[Partition] = []

    def planned() -> Partition:
        if not made:
            made.append(plan(sample_demand(trace, setup), setup))
        return made[0]

    return [
        run_policy(choice, trace, setup, planned, progress, None if executor is None else executor(name))
        for choice, name in zip(policies, names, strict=True)
    ]


def timed_plan(
    demand: Demand, setup: Setup, *, objective: Objective | None = None, stages: int | None = None
) -> tuple[Partition, float]:
    """The partition for a demand, and the seconds from this histogram to the plan, cost tables included."""
    start = time.perf_counter()
    made = plan(demand, setup, objective=objective, stages=stages)
    return made, time.perf_counter() - start


def tables(name: str, trace: Trace, result: SimulationResult, policy: Policy, instances: int) -> Run:
    """A run's flat rows as tables, requests in the trace's order."""
    from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, REQUESTS, Death, Run, frame_from_rows

    ids = {"request_id": trace.request_id}
    requests = _by_first_column(result.requests, len(REQUESTS) - 1)
    request_words: Mapping[str, Sequence[str]] = {**ids, "status": REQUEST_STATUSES, "reason": result.reasons}
    migration_words = {**ids, "kind": KINDS, "status": STATUSES, "reason": REASONS}
    return Run(
        name,
        frame_from_rows(name, requests, REQUESTS, request_words),
        frame_from_rows(name, result.iterations, ITERATIONS, {}),
        frame_from_rows(name, result.migrations, MIGRATIONS, migration_words),
        None if policy.partition is None else policy.partition.plan.stages,
        frame_from_rows(name, array("d", [n for move in policy.boundary_moves for n in move]), BOUNDARIES, {}),
        instances,
        tuple(Death(*death) for death in result.deaths),
    )


def _by_first_column(flat: array[float], width: int) -> array[float]:
    """Rows put in order of their first number."""
    rows = np.frombuffer(flat, dtype=np.float64).reshape(-1, width)
    ordered = array("d")
    ordered.frombytes(rows[np.argsort(rows[:, 0], kind="stable")].tobytes())
    return ordered
