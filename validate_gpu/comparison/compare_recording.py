"""Recorded live runs compared again, without their device: with another profile, or after the simulator has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from l4sim.errors import InputError
from l4sim.experiment import Setup, run_built
from l4sim.workload.trace import Trace
from validate_gpu.comparison.compare import Comparison, compare_sides
from validate_gpu.decisions import Call, DecisionReplay, record_decisions
from validate_gpu.live.executor import RecordedExecutor
from validate_gpu.live_run import LiveResult, LiveRun
from validate_gpu.lockstep import again, stepwise
from validate_gpu.recording.read import LiveRecording, RecordedRun
from validate_gpu.recording.write import decision_lines


def compare_recording(recorded: LiveRecording, setup: Setup) -> Comparison:
    """Compare recorded live runs with a simulation that has ``setup``'s costs and the plans of the live runs.

    Decisions are compared too: those of a simulation that takes the recorded seconds, with the recorded ones, as text.
    Realtime runs have no schedule that a simulation could repeat, so that their decisions are left out.

    Raises:
        InputError: a run of a policy with a plan was recorded without it, or seconds at another reference speed.
    """
    trace, deployed = recorded.trace, recorded.deployed
    recorded_at, predicting = deployed.profile.reference_s, setup.profile.reference_s
    if recorded_at != predicting:
        raise InputError(
            f"profile {setup.profile.name} has reference_s {predicting}, and the runs were recorded at {recorded_at}: "
            "accepted is a profile of the same reference speed, such as the recording's own"
        )
    repeatable = recorded.driver != "realtime"
    runs = {
        name: [_live(trace, deployed, one, repeatable=repeatable) for one in own] for name, own in recorded.runs.items()
    }
    predicted = {name: run_built(name, again(trace, deployed, own[0]), trace, setup) for name, own in runs.items()}
    live = LiveResult(runs, recorded.device)
    comparison = compare_sides(trace, setup, live, predicted, driver=recorded.driver, deployed=deployed)
    if not repeatable:
        return comparison
    replays = {name: _held_against(comparison.replays[name], own, runs[name]) for name, own in recorded.runs.items()}
    return replace(comparison, replays=replays)


def _live(trace: Trace, deployed: Setup, recorded: RecordedRun, *, repeatable: bool) -> LiveRun:
    """A recorded run, with the calls of a simulation that takes its seconds; without any unless it is repeatable."""
    calls: list[Call] = []
    live = LiveRun(recorded.run, recorded.iterations, recorded.copies, calls, recorded.partition)
    if not repeatable:
        return live
    policy = record_decisions(again(trace, deployed, live), calls)
    executor = RecordedExecutor(recorded.iterations)
    run_built(recorded.run.policy, policy, trace, stepwise(deployed), executor=executor)
    return live


def _held_against(
    simulated: DecisionReplay, recorded: Sequence[RecordedRun], runs: Sequence[LiveRun]
) -> DecisionReplay:
    """The decisions of all repeats against the recorded ones."""
    pairs = [
        (one, other)
        for kept, live in zip(recorded, runs, strict=True)
        for one, other in zip_longest(kept.decisions, decision_lines(live.calls), fillvalue="nothing")
        if one != other
    ]
    if not pairs:
        return simulated
    first = f"{pairs[0][0]} live, {pairs[0][1]} simulated"
    # A simulation that ends early has made fewer than were recorded.
    made = sum(len(kept.decisions) for kept in recorded)
    stimuli = max(simulated.stimuli, made - simulated.routed)
    differing = min(len(pairs), simulated.routed + stimuli)
    return replace(simulated, stimuli=stimuli, differing=differing, first_difference=first)
