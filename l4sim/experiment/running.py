"""From a setup, a trace and policies to runs, one policy after the other."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from l4sim.engine.rules import engine_named
from l4sim.errors import InputError
from l4sim.experiment.planning import setting_for
from l4sim.experiment.setup import GroupSetup, Setup, instances_of
from l4sim.policies.plan import Plans, SharedPlans
from l4sim.policies.policy import Policy, PolicyChoice
from l4sim.policies.registry import build_policy, check_fleet, policy_name
from l4sim.runtime.executor import Executor
from l4sim.runtime.migration.methods import MigrationRules
from l4sim.simulator import FleetEvent, InstanceSpec, Join, Rules, SimulationResult, simulate_fleet
from l4sim.simulator.transport import Network
from l4sim.specs import events
from l4sim.specs.front_end import load_front_end
from l4sim.workload.trace import Trace

if TYPE_CHECKING:
    from l4sim.results.run import Run


Progress = Callable[[str, float, int], None]
"""Policy, simulated seconds, requests ended."""


def run_policy(
    choice: PolicyChoice,
    trace: Trace,
    setup: Setup,
    plans: Plans | None = None,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Run:
    """Replay the trace under one policy; on live instances, if an executor stands in for the cost model.

    ``plans`` gives the policy its plan, if it needs one; by default it makes one.

    Raises:
        InputError: no such policy; the trace does not suit it or the engine; it heeds not the fleet's events or roles.
    """
    policy = policy_for(choice, trace, setup, plans)
    kinds = {type(event) for event in setup.events}
    roles = any(group.kind.role != "both" for group in setup.groups)
    check_fleet(choice, policy, joins=events.Join in kinds, drains=events.Drain in kinds, roles=roles)
    return run_built(policy_name(choice), policy, trace, setup, progress, executor)


def run_built(
    name: str,
    policy: Policy,
    trace: Trace,
    setup: Setup,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Run:
    """Replay the trace under a policy that has not run yet, which may have been built for another setup.

    Raises:
        InputError: the trace does not suit the engine.
    """
    result = simulate_fleet(
        trace,
        policy,
        [_spec(group, setup) for group in instances_of(setup)],
        setup.placement,
        events=[_fleet_event(event, setup) for event in setup.events],
        rules=rules_of(setup),
        progress=None if progress is None else lambda time_s, ended: progress(name, time_s, ended),
        executor=executor,
    )
    return tables(name, trace, result, policy)


def _spec(group: GroupSetup, setup: Setup) -> InstanceSpec:
    make_engine = engine_named(setup.options.engine_rules)
    return InstanceSpec(group.engine, group.cost, group.kv_bytes_per_token, group.kind, make_engine)


def _fleet_event(event: events.Event, setup: Setup) -> FleetEvent:
    if isinstance(event, events.Join):
        return Join(_spec(setup.group(event.group), setup), event.time_s)
    return event


def rules_of(setup: Setup) -> Rules:
    """How the simulated world works, as the options say."""
    options = setup.options
    return Rules(
        fast_forward=options.fast_forward,
        failure_detection_s=options.failure_detection_s,
        view_age_s=options.view_age_s,
        network=Network(
            options.message_latency_s,
            options.message_jitter_s,
            options.message_loss,
            options.message_duplication,
            options.seed,
        ),
        migration=MigrationRules(
            options.max_concurrent_migrations,
            options.migration_last_stage_blocks,
            options.migration_max_stages,
            options.migration_slowdown,
            options.migration,
        ),
        front_end=load_front_end(options.front_end),
    )


def policy_for(choice: PolicyChoice, trace: Trace, setup: Setup, plans: Plans | None = None) -> Policy:
    """A policy as a run of this trace needs it; ``plans`` as in `run_policy`.

    Raises:
        InputError: no such policy, or the trace does not suit it.
    """
    return build_policy(choice, setting_for(trace, setup, plans))


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
    plans = SharedPlans()
    return [
        run_policy(choice, trace, setup, plans, progress, None if executor is None else executor(name))
        for choice, name in zip(policies, names, strict=True)
    ]


def tables(name: str, trace: Trace, result: SimulationResult, policy: Policy) -> Run:
    """A run's flat rows as tables, requests in the trace's order."""
    from l4sim.results.run import BOUNDARIES, ITERATIONS, MIGRATIONS, REQUESTS, InstanceChange, Run, frame_from_rows

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
        tuple(InstanceChange(**change._asdict()) for change in result.changes),
        policy.kind,
    )


def _by_first_column(flat: array[float], width: int) -> array[float]:
    """Rows put in order of their first number."""
    rows = np.frombuffer(flat, dtype=np.float64).reshape(-1, width)
    ordered = array("d")
    ordered.frombytes(rows[np.argsort(rows[:, 0], kind="stable")].tobytes())
    return ordered
