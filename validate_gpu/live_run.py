"""What a live run leaves beside its tables: every iteration with its batch, every copy of KV, every decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from l4sim.batch import Batch
from l4sim.policies.l4.partition import Partition
from l4sim.results.run import Run
from validate_gpu.decisions import Call


class Iteration(NamedTuple):
    """One iteration that was run on a device."""

    instance: int
    batch: Batch
    """Its lengths are a copy of the engine's."""
    seconds: float
    """At the reference speed: what was measured, divided by `slowness`."""
    clock_mhz: float
    """The device's latest known clock; 0 if there is none."""
    slowness: float = 1.0
    """How many times the reference's seconds the device took just then."""


class Copy(NamedTuple):
    """One stage of a migration, copied from one pool's pages to another's on a device."""

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
    """Of each instance in the order of `Run.iterations`; an iteration that the run's end cut short may follow."""
    copies: Sequence[Copy]
    """Empty where instances copy in processes of their own, whose migrations take real time."""
    calls: Sequence[Call]
    partition: Partition | None = None
    """What the policy was planned to do; None for policies without a plan."""

    @property
    def failed(self) -> int:
        """Requests that the device failed."""
        return int((self.run.requests["status"] == "failed").sum())


@dataclass(frozen=True, slots=True, eq=False)
class LiveResult:
    """Live runs of several policies, each repeated."""

    runs: Mapping[str, Sequence[LiveRun]]
    """By policy, in order of the repeats."""
    device: Mapping[str, Any]
