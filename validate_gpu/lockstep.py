"""Lockstep: any number of live instances in turn on one device, each moving its own virtual clock.

The simulator decides who is next: it delivers everything up to a moment, then lets the instance whose moment it is run
its iteration, alone on the device, and takes the measured seconds as that iteration's time. So 16 instances validate on
one GPU. Migrations take a link's modelled time, and copy for real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from l4sim.errors import InputError
from l4sim.experiment import Setup, policy_for, run_built
from l4sim.policies.plan import GivenPlan, Planned, Plans, SharedPlans
from l4sim.policies.policy import Policy
from l4sim.results.run import Run
from l4sim.specs.events import joins
from l4sim.workload.trace import Trace
from validate_gpu.decisions import Call, record_decisions
from validate_gpu.live.build import LiveOptions, build_engine, describe_device
from validate_gpu.live.clock import no_collections
from validate_gpu.live.engine import DeviceEngine
from validate_gpu.live.executor import LiveExecutor, RecordedExecutor
from validate_gpu.live.sequences import Sequences
from validate_gpu.live_run import LiveResult, LiveRun
from validate_gpu.measure.describe import Clock
from validate_gpu.measure.speed import slowness_of
from validate_gpu.measure.timing import SlownessAfter


def lockstep(
    trace: Trace,
    policies: Sequence[str],
    setup: Setup,
    options: LiveOptions,
    *,
    repeats: int = 1,
    on_run: Callable[[LiveRun], None] | None = None,
) -> LiveResult:
    """Replay the trace on live instances under each policy in turn, all of that ``repeats`` times.

    A run that the device fails keeps its finished requests; the others have failed, with the reason.

    Raises:
        InputError: tensor parallelism or prefix caching, or the device does not suit the run.
        ExecutionError: an attention kernel fails its check.
    """
    setup = stepwise(setup)
    plans = SharedPlans()
    sequences = Sequences(setup.model.vocab, setup.options.seed)
    engine = build_engine(setup.model, setup.engine, setup.instances, options, sequences)
    runs: dict[str, list[LiveRun]] = {name: [] for name in policies}
    slowness = slowness_of(engine.device, setup.profile.reference_s)
    with Clock(engine.device) as clock:
        # Policies in turn within each repeat: a device that slows down over time slows all of them.
        for _ in range(repeats):
            for name in policies:
                live = _run(name, trace, setup, plans, engine, lambda: clock.mhz, slowness)
                runs[name].append(live)
                if on_run is not None:
                    on_run(live)
    return LiveResult(runs, describe_device(engine.device))


def _run(
    name: str,
    trace: Trace,
    setup: Setup,
    plans: Plans,
    engine: DeviceEngine,
    clock_mhz: Callable[[], float],
    slowness: SlownessAfter | None,
) -> LiveRun:
    calls: list[Call] = []
    policy = record_decisions(policy_for(name, trace, setup, plans), calls)
    executor = LiveExecutor([engine], clock_mhz=clock_mhz, slowness=slowness)
    with no_collections():
        run = run_built(name, policy, trace, setup, executor=executor)
    return LiveRun(run, executor.iterations, executor.copies, calls, policy.partition)


def repeat(trace: Trace, setup: Setup, live: LiveRun) -> Run:
    """Simulate with a live run's own iteration times: the schedule is the same, or the simulator is wrong.

    Raises:
        InputError: as `l4sim.experiment.run_built`.
    """
    executor = RecordedExecutor(live.iterations)
    return run_built(live.run.policy, again(trace, setup, live), trace, stepwise(setup), executor=executor)


def again(trace: Trace, setup: Setup, live: LiveRun) -> Policy:
    """A live run's policy afresh, with the plan that it had.

    Raises:
        InputError: the policy needs a plan, and the run has none.
    """

    def planned() -> Planned:
        if live.partition is None:
            raise InputError(f"{live.run.policy} without its plan: accepted is a recording with partition.json")
        return live.partition

    return policy_for(live.run.policy, trace, stepwise(setup), GivenPlan(planned))


def shared_memory(setup: Setup) -> Setup:
    """A setup whose instances share the KV blocks that one device has room for."""
    engine = setup.engine
    shared = replace(engine, kv_blocks=engine.kv_blocks // setup.instances)
    return setup.each(lambda group: replace(group, engine=shared))


def stepwise(setup: Setup) -> Setup:
    """A setup for live instances: no iteration is skipped.

    Raises:
        InputError: what live instances cannot do.
    """
    options = setup.options
    if options.tensor_parallel != 1:
        raise InputError(f"--tensor-parallel {options.tensor_parallel}: accepted in a live run is 1")
    if setup.engine.prefix_caching:
        raise InputError("a live run has no prefix cache: accepted is --no-prefix-caching")
    if joins(setup.events):
        raise InputError("a live run's instances are all there from the start: accepted is a fleet that none joins")
    return replace(setup, options=replace(options, fast_forward=False))
