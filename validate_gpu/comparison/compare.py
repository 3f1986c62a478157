"""A live run and its simulation side by side: everything that a validation says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from l4sim.experiment import Setup
from l4sim.results.metrics import summarise
from l4sim.results.run import Run
from l4sim.workload.trace import Trace
from validate_gpu.comparison.figures import Figure, Ranking, compare_figures, find_figure, rank
from validate_gpu.comparison.iterations import (
    ShapeError,
    Slowness,
    errors_by_shape,
    iteration_table,
    slowness_of_runs,
)
from validate_gpu.comparison.migrations import CopyBucket, MigrationFigures, copies_by_size, migration_figures
from validate_gpu.decisions import DecisionReplay, replay_decisions
from validate_gpu.live_run import LiveResult, LiveRun
from validate_gpu.lockstep import again, repeat

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Live runs and the simulation of the same requests; mappings are by policy."""

    trace: Trace
    setup: Setup
    driver: str
    """`lockstep` or `realtime`."""
    live: LiveResult
    predicted: Mapping[str, Run]
    figures: Mapping[str, Sequence[Figure]]
    rankings: Sequence[Ranking]
    iterations: DataFrame
    """As `iteration_table` makes it."""
    slowness: Slowness | None
    """How slow the device was during the live runs; their seconds are divided by it. None: they are as measured."""
    shapes: Sequence[ShapeError]
    replays: Mapping[str, DecisionReplay]
    """Of all repeats together."""
    schedules_equal: Mapping[str, bool]
    """Whether a simulation that takes the live run's own seconds gives the same tables; empty for realtime runs."""
    migrations: Mapping[str, tuple[MigrationFigures, MigrationFigures]]
    """Measured and predicted."""
    copies: Sequence[CopyBucket]

    def error_pct(self, policy: str) -> float:
        """Of a policy's mean E2E latency."""
        return find_figure(self.figures[policy], "e2e_s", "mean").error_pct

    def beyond(self, tolerance_pct: float) -> list[str]:
        """Policies whose mean E2E latency is off by more than that, or whose live runs had failed requests."""
        # Written so that NaN is beyond too.
        return [
            policy
            for policy, runs in self.live.runs.items()
            if not abs(self.error_pct(policy)) <= tolerance_pct or any(run.failed for run in runs)
        ]

    @property
    def rankings_alike(self) -> tuple[int, int]:
        """Of the pairs of policies that differ by more than noise, how many are predicted in the measured order, and
        how many there are.
        """
        apart = [ranking for ranking in self.rankings if ranking.told_apart]
        return sum(ranking.alike for ranking in apart), len(apart)

    def to_json(self) -> dict[str, Any]:
        """Everything but the tables."""
        return {
            "config": {**self.setup.describe(), "trace": trace_summary(self.trace), "live": dict(self.live.device)},
            "driver": self.driver,
            "figures": {
                policy: [
                    {
                        "metric": figure.metric,
                        "statistic": figure.statistic,
                        "measured": list(figure.measured),
                        "predicted": figure.predicted,
                        "error_pct": figure.error_pct,
                        "noise_pct": figure.noise_pct,
                    }
                    for figure in figures
                ]
                for policy, figures in self.figures.items()
            },
            "rankings": [{**ranking._asdict(), "alike": ranking.alike} for ranking in self.rankings],
            "slowness": None if self.slowness is None else self.slowness._asdict(),
            "iterations": [shape._asdict() for shape in self.shapes],
            "decisions": dict(self.replays),
            "schedules_equal": dict(self.schedules_equal),
            "migrations": {
                policy: {"measured": measured._asdict(), "predicted": predicted._asdict()}
                for policy, (measured, predicted) in self.migrations.items()
            },
            "copies": [bucket._asdict() for bucket in self.copies],
        }


def compare_sides(
    trace: Trace,
    setup: Setup,
    live: LiveResult,
    predicted: Mapping[str, Run],
    *,
    driver: str,
    deployed: Setup | None = None,
) -> Comparison:
    """Hold live runs against simulated ones of the same trace, setup and policies.

    ``deployed``: what the policies were planned with, on both sides, if it is not what predicts.
    """
    deployed = setup if deployed is None else deployed
    figures = {
        policy: compare_figures([summarise(one.run) for one in runs], summarise(predicted[policy]))
        for policy, runs in live.runs.items()
    }
    iterations = iteration_table(live, setup.cost)
    block_bytes = setup.model.kv_bytes_per_token * setup.engine.block_tokens
    copies = [copy for runs in live.runs.values() for one in runs for copy in one.copies]
    return Comparison(
        trace=trace,
        setup=setup,
        driver=driver,
        live=live,
        predicted=predicted,
        figures=figures,
        rankings=rank(figures),
        iterations=iterations,
        slowness=slowness_of_runs(iterations),
        shapes=errors_by_shape(iterations),
        replays=_replays(trace, deployed, live),
        schedules_equal={} if driver == "realtime" else _schedules(trace, deployed, live),
        migrations={
            policy: (
                migration_figures([one.run for one in runs], block_bytes),
                migration_figures([predicted[policy]], block_bytes),
            )
            for policy, runs in live.runs.items()
        },
        copies=copies_by_size(copies, setup.engine.block_tokens),
    )


def trace_summary(trace: Trace) -> dict[str, Any]:
    """A trace by name, size and content."""
    return {"name": trace.name, "requests": len(trace), "sha256": trace.content_hash}


def _replays(trace: Trace, setup: Setup, live: LiveResult) -> dict[str, DecisionReplay]:
    replays = {
        policy: [replay_decisions(one.calls, again(trace, setup, one)) for one in runs]
        for policy, runs in live.runs.items()
    }
    return {policy: _sum(of_runs) for policy, of_runs in replays.items()}


def _sum(replays: Sequence[DecisionReplay]) -> DecisionReplay:
    first = next((one.first_difference for one in replays if one.first_difference), "")
    return DecisionReplay(
        routed=sum(one.routed for one in replays),
        stimuli=sum(one.stimuli for one in replays),
        instructions=sum(one.instructions for one in replays),
        differing=sum(one.differing for one in replays),
        first_difference=first,
    )


def _schedules(trace: Trace, setup: Setup, live: LiveResult) -> dict[str, bool]:
    return {policy: all(_repeats(trace, setup, one) for one in runs) for policy, runs in live.runs.items()}


def _repeats(trace: Trace, setup: Setup, live: LiveRun) -> bool:
    again = repeat(trace, setup, live)
    return all(
        getattr(live.run, table).equals(getattr(again, table)) for table in ("requests", "iterations", "migrations")
    )
