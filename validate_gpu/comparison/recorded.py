"""A recorded validation compared again: with another profile, or after the simulator has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from l4sim.experiment import Setup, run_built
from l4sim.workload.trace import Trace
from validate_gpu.comparison.compare import Comparison, compare_sides
from validate_gpu.decisions import Call, recording
from validate_gpu.live.executor import RecordedExecutor
from validate_gpu.lockstep import again, stepwise
from validate_gpu.recording import Recorded, Recording, decision_lines
from validate_gpu.records import LiveResult, LiveRun


def compare_recording(recorded: Recording, setup: Setup) -> Comparison:
    """Hold recorded live runs against a simulation with ``setup``'s costs, of policies planned as they were live.

    Decisions are those of a simulation with the recorded seconds, held against the recorded ones text for text.

    Raises:
        InputError: a run of a policy with a plan was recorded without it.
    """
    trace, deployed = recorded.trace, recorded.deployed
    runs = {name: [_live(trace, deployed, one) for one in own] for name, own in recorded.runs.items()}
    predicted = {name: run_built(name, again(trace, deployed, own[0]), trace, setup) for name, own in runs.items()}
    live = LiveResult(runs, recorded.device)
    comparison = compare_sides(trace, setup, live, predicted, driver=recorded.driver, deployed=deployed)
    replays = dict(comparison.replays)
    for name, own in recorded.runs.items():
        for one, simulated in zip(own, runs[name], strict=True):
            differing, first = _differing(one.decisions, list(decision_lines(simulated.calls)))
            if differing:
                replays[name] = replace(replays[name], differing=differing, first_difference=first)
    return replace(comparison, replays=replays)


def _live(trace: Trace, deployed: Setup, recorded: Recorded) -> LiveRun:
    """A recorded run, and the calls of a simulation that takes its seconds."""
    calls: list[Call] = []
    live = LiveRun(recorded.run, recorded.iterations, recorded.copies, calls, recorded.partition)
    policy = recording(again(trace, deployed, live), calls)
    executor = RecordedExecutor(recorded.iterations)
    run_built(recorded.run.policy, policy, trace, stepwise(deployed), executor=executor)
    return live


def _differing(recorded: Sequence[str], again: Sequence[str]) -> tuple[int, str]:
    """How many calls differ, and the first that does."""
    pairs = [(one, other) for one, other in zip_longest(recorded, again, fillvalue="nothing") if one != other]
    return len(pairs), f"{pairs[0][0]} live, {pairs[0][1]} simulated" if pairs else ""
