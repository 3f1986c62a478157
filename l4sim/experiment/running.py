"""From a setup, a trace and policies to runs, one policy after the other."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from l4sim.cost.affine import fit_affine
from l4sim.errors import InputError
from l4sim.experiment.options import Setup
from l4sim.experiment.planning import capacity_of, plan, sample_demand, sample_size
from l4sim.policies.l4.affinity import Affinity, Prices
from l4sim.policies.l4.partition import Partition
from l4sim.policies.l4.replan import Planning
from l4sim.policies.policy import Policy, PolicyChoice, Setting
from l4sim.policies.registry import build_policy, policy_name
from l4sim.policies.views import SOLE_KIND
from l4sim.runtime.executor import Executor
from l4sim.runtime.trace_requests import shared_prefix_ids
from l4sim.simulator import Fail, InstanceSpec, Rules, SimulationResult, simulate_fleet
from l4sim.workload.trace import Trace

if TYPE_CHECKING:
    from l4sim.results.run import Run


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
    policy = policy_for(choice, trace, setup, partition)
    return run_built(policy_name(choice), policy, trace, setup, progress, executor)


def run_built(
    name: str,
    policy: Policy,
    trace: Trace,
    setup: Setup,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Run:
    """Replay the trace under a policy that has not run yet, which may have been built for another setup."""
    cluster = setup.cluster
    kind = SOLE_KIND._replace(gpu=setup.profile.gpu.name, tensor_parallel=cluster.tensor_parallel)
    instance = InstanceSpec(setup.engine, setup.cost, setup.model.kv_bytes_per_token, kind)
    result = simulate_fleet(
        trace,
        policy,
        [instance] * cluster.instances,
        cluster,
        events=[Fail(failure.time_s, failure.instance) for failure in setup.failures],
        rules=Rules(fast_forward=setup.options.fast_forward),
        progress=None if progress is None else lambda time_s, ended: progress(name, time_s, ended),
        executor=executor,
    )
    return tables(name, trace, result, policy)


def policy_for(choice: PolicyChoice, trace: Trace, setup: Setup, partition: Callable[[], Partition]) -> Policy:
    """A policy as a run of this trace needs it.

    Raises:
        InputError: no such policy, or the trace does not suit it.
    """
    return build_policy(choice, _setting(trace, setup, partition))


def _setting(trace: Trace, setup: Setup, partition: Callable[[], Partition]) -> Setting:
    count, block_tokens = sample_size(trace, setup), setup.engine.block_tokens
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
        planning=lambda: Planning(setup.cost, capacity_of(setup), setup.engine.max_model_len),
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


def tables(name: str, trace: Trace, result: SimulationResult, policy: Policy) -> Run:
    """A run's flat rows as tables, requests in the trace's order."""
    from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, REQUESTS, Death, Run, frame_from_rows

    ids = {"request_id": trace.request_id}
    requests = _by_first_column(result.requests.numbers, len(result.requests.columns))
    return Run(
        name,
        frame_from_rows(name, requests, REQUESTS, ids | result.requests.words),
        frame_from_rows(name, result.iterations.numbers, ITERATIONS, {}),
        frame_from_rows(name, result.migrations.numbers, MIGRATIONS, ids | result.migrations.words),
        None if policy.partition is None else policy.partition.plan.stages,
        frame_from_rows(name, array("d", [n for move in policy.boundary_moves for n in move]), BOUNDARIES, {}),
        result.instances,
        tuple(Death(c.instance, c.time_s, c.requests) for c in result.changes if c.change == "died"),
    )


def _by_first_column(flat: array[float], width: int) -> array[float]:
    """Rows put in order of their first number."""
    rows = np.frombuffer(flat, dtype=np.float64).reshape(-1, width)
    ordered = array("d")
    ordered.frombytes(rows[np.argsort(rows[:, 0], kind="stable")].tobytes())
    return ordered
