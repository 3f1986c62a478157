"""What a live run leaves: a run's tables, and each iteration with its batch, each copy of KV, each decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from l4sim.batch import Batch
from l4sim.policies.plan import Planned
from l4sim.results.run import Run
from validate_gpu.decisions import Call


class Iteration(NamedTuple):
    """One iteration that was run on a device."""

    instance: int
    batch: Batch
    """With its own copy of the lengths: the engine goes on changing its arrays."""
    seconds: float
    """At the reference speed: what was measured, divided by `slowness`."""
    clock_mhz: float
    """The device's latest known clock; 0 if there is none."""
    slowness: float = 1.0
    """How many times longer than at the reference speed the device took at that time."""


class Copy(NamedTuple):
    """One copying stage of a migration: KV copied from one instance's pages to another's, on a device."""

    request: int
    source: int
    destination: int
    tokens: int
    size_bytes: int
    seconds: float
    equal: bool
    """Whether the destination then held what the source holds, bit for bit."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveRun:
    """One policy's run on live instances."""

    run: Run
    iterations: Sequence[Iteration]
    """Each instance's are in the order of `Run.iterations`. One more may follow, which was under way at the end."""
    copies: Sequence[Copy]
    """Empty for realtime runs, whose instances are processes of their own: what copies took is in the migrations."""
    calls: Sequence[Call]
    partition: Planned | None = None
    """The plan that the policy ran with; None for policies without a plan."""

    @property
    def failed(self) -> int:
        """How many requests failed, as the device did."""
        return int((self.run.requests["status"] == "failed").sum())


@dataclass(frozen=True, slots=True, eq=False)
class LiveResult:
    """Live runs of several policies, each repeated."""

    runs: Mapping[str, Sequence[LiveRun]]
    """By policy, in order of the repeats."""
    device: Mapping[str, Any]
