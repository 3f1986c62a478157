"""Lockstep: any number of live instances in turn on one device, each moving its own virtual clock.

The simulator decides who is next: it delivers everything up to a moment, then lets the instance whose moment it is run
its iteration, alone on the device, and takes the measured seconds as that iteration's time. So 16 instances validate on
one GPU. Migrations take a link's modelled time, and copy for real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from l4sim.errors import InputError
from l4sim.experiment import Progress, Setup, compare
from l4sim.results.run import Run
from l4sim.workload.trace import Trace
from validate_gpu.live.build import LiveOptions, build_engine, describe_device
from validate_gpu.live.executor import LiveExecutor, RecordedExecutor
from validate_gpu.live.sequences import Sequences

Seconds = dict[str, dict[int, list[float]]]
"""By policy and instance: the measured time of every iteration, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveResult:
    """A live run of several policies."""

    runs: list[Run]
    seconds: Seconds
    device: dict[str, Any]


def lockstep(
    trace: Trace, policies: Sequence[str], setup: Setup, options: LiveOptions, progress: Progress | None = None
) -> LiveResult:
    """Replay the trace on live instances under each policy in turn.

    A run that the device fails keeps its finished requests; the others have failed, with the reason.

    Raises:
        InputError: tensor parallelism or prefix caching, or the device does not suit the run.
        ExecutionError: an attention kernel fails its check.
    """
    setup = stepwise(setup)
    sequences = Sequences(setup.model.vocab, setup.options.seed)
    engine = build_engine(setup.model, setup.engine, setup.options.instances, options, sequences)
    executors: dict[str, LiveExecutor] = {}

    def live(policy: str) -> LiveExecutor:
        executors[policy] = LiveExecutor([engine])
        return executors[policy]

    runs = compare(trace, policies, setup, progress, live)
    seconds = {policy: executor.seconds for policy, executor in executors.items()}
    return LiveResult(runs, seconds, describe_device(engine.device))


def repeat(trace: Trace, policies: Sequence[str], setup: Setup, seconds: Seconds) -> list[Run]:
    """Simulate with a live run's own iteration times: the schedules are the same, or the simulator is wrong.

    Raises:
        InputError: as `l4sim.experiment.compare`.
    """
    return compare(trace, policies, stepwise(setup), executor=lambda policy: RecordedExecutor(seconds[policy]))


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
    return replace(setup, options=replace(options, fast_forward=False))
