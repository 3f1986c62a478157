"""How sure is a prediction? What measured runs its like was held against, and how far off it was: ``held.json``.

`l4sim validate all FOLDER --record` writes the file: each run's errors with constants that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Any

from l4sim.bundled import folder
from l4sim.json_files import Count, Number, Text, read_json

if TYPE_CHECKING:
    from l4sim.experiment import Setup
    from l4sim.experiment.setup import GroupSetup

HELD_FILE = "held.json"
E2E = "e2e_s_mean"


@dataclass(frozen=True, slots=True)
class HeldRun:
    """One measured run, and how far a prediction of it was off."""

    run: Text
    engine: Text
    """What ran, with its version."""
    profile: Text
    """The profile that predicted it."""
    tensor_parallel: Count
    model: Text
    errors_pct: Mapping[str, Number]
    """(predicted - measured) / measured, percent, by metric."""
    kind: Text | None = None
    """How the profile's kernels were timed (`l4sim.specs.fitted`)."""


@dataclass(frozen=True, slots=True)
class _File:
    runs: tuple[HeldRun, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """The measured runs that are nearest to what is simulated."""

    runs: tuple[HeldRun, ...]
    likeness: str
    """What they have in common with it."""

    @property
    def error_pct(self) -> float | None:
        """The median of how far mean E2E latency was off; None where nothing was measured."""
        return median(abs(run.errors_pct[E2E]) for run in self.runs) if self.runs else None

    def __str__(self) -> str:
        if not self.runs:
            return "held against no measured run"
        errors = sorted(abs(run.errors_pct[E2E]) for run in self.runs)
        off = f"{errors[0]:.1f}" if len(errors) == 1 else f"{errors[0]:.1f} to {errors[-1]:.1f}"
        middle = f", median {median(errors):.1f}" if len(errors) > 2 else ""
        engines = ", ".join(sorted({run.engine for run in self.runs}))
        count = "1 measured run" if len(errors) == 1 else f"{len(errors)} measured runs"
        return f"held against {count} of {engines} {self.likeness}: mean E2E off by {off} %{middle}"


@lru_cache(maxsize=1)
def load_held() -> tuple[HeldRun, ...]:
    """All runs that predictions were held against."""
    return read_json(folder("profiles") / HELD_FILE, _File).runs


def held_against(group: GroupSetup) -> Held:
    """The measured runs that are most like a group's instances: of its profile and tensor parallelism, else of its
    profile, else of profiles whose kernels were timed in the same way.
    """
    profile, tensor_parallel = group.profile, group.kind.tensor_parallel
    known = load_held()
    own = [run for run in known if run.profile == profile.name]
    same = tuple(run for run in own if run.tensor_parallel == tensor_parallel)
    if same:
        return Held(same, f"on {profile.name}, TP {tensor_parallel}")
    if own:
        others = ", ".join(str(size) for size in sorted({run.tensor_parallel for run in own}))
        return Held(tuple(own), f"on {profile.name} at TP {others}, not {tensor_parallel}")
    kin = tuple(run for run in known if profile.host_kind is not None and run.kind == profile.host_kind)
    return Held(kin, f"on {', '.join(sorted({run.profile for run in kin}))}, not on {profile.name}")


def held_line(setup: Setup) -> str:
    """What a setup's groups were held against, in one line."""
    lines = {str(held_against(group)): group.spec.name for group in setup.groups}
    if len(lines) == 1:
        return f"How sure: {next(iter(lines))}."
    return f"How sure: {'; '.join(f'{name}: {line}' for line, name in lines.items())}."


def closer_than_error(setup: Setup, summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each policy that the best one, by mean normalized latency, leads by less than predictions are off."""
    errors = [error for group in setup.groups if (error := held_against(group).error_pct) is not None]
    finished = [summary for summary in summaries if summary["requests"]["finished"]]
    if not errors or len(finished) < 2:
        return []
    best, off_pct = min(finished, key=_normalized), max(errors)
    leads_pct = [(other["policy"], 100 * (_normalized(other) / _normalized(best) - 1)) for other in finished]
    return [
        f"{best['policy']} and {name} differ by {lead_pct:.1f} %, less than the model's error on this class "
        f"({off_pct:.1f} % of mean E2E)."
        for name, lead_pct in leads_pct
        if name != best["policy"] and lead_pct < off_pct
    ]


def _normalized(summary: Mapping[str, Any]) -> float:
    return float(summary["normalized_latency_s"]["mean"])
