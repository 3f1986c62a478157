"""Whole iterations timed while an engine serves: in a loop of their own they would find all that they use in caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from l4sim.cost.affine import AffineCost
from l4sim.engine.blocks import BlockPool
from l4sim.engine.config import EngineConfig
from l4sim.engine.protocol import Step
from l4sim.engine.request import Request
from l4sim.policies.routers import RoundRobin
from l4sim.simulator import Rules, simulate
from l4sim.specs.placement import Placement
from l4sim.workload.trace import Trace
from validate_gpu.measure.timing import (
    LEAST_REPEATS,
    WARM_UPS,
    AtReferenceSpeed,
    Launch,
    SlownessAfter,
    Timing,
)

INSTANCES = 4
# The host needs longer than a kernel to be as warm as in a run.
SAMPLES = 6
_MOST_REPEATS = 200
_ENGINE = EngineConfig(
    kv_blocks=64, max_model_len=1024, max_num_seqs=8, max_num_batched_tokens=64, block_tokens=16, prefix_caching=False
)


@runtime_checkable
class Prepared(Protocol):
    """A launch with something to do before each time that it is called, which is not timed."""

    def prepare(self, instance: int) -> None:
        """Make ready for an iteration of one of the `INSTANCES`."""
        ...


class ServedTimer:
    """A launch in place of every iteration of a few instances: scheduling, clock and inputs come between two of them.

    As in a lockstep run, which is what iterations are predicted for; a launch ends on the host.
    """

    def __init__(self, sample_s: float, now: Callable[[], float], slowness: SlownessAfter | None = None) -> None:
        self._sample_s = sample_s
        self._now = now
        self._slowness = slowness

    def time(self, launches: Sequence[Launch]) -> Timing:
        """Repeat the one launch for ``SAMPLES`` times ``sample_s``, at least 7 and at most 200 times."""
        [launch] = launches
        first = _Probe(launch, self._now, AtReferenceSpeed(None))
        _serve(first, WARM_UPS + 1)
        repeats = int(SAMPLES * self._sample_s / max(first.seconds[-1], 1e-9))
        repeats = min(max(repeats, LEAST_REPEATS), _MOST_REPEATS)
        told = AtReferenceSpeed(self._slowness)
        probe = _Probe(launch, self._now, told)
        _serve(probe, repeats)
        return Timing(np.array(probe.seconds[:repeats]), "served", probe.result, told.slowness)


class _Probe:
    """An executor that runs the launch, whatever it is asked for."""

    measured = True

    def __init__(self, launch: Launch, now: Callable[[], float], told: AtReferenceSpeed) -> None:
        self.seconds: list[float] = []
        self.result: Tensor
        self._launch = launch
        self._now = now
        self._told = told

    def pool(self, instance: int) -> BlockPool | None:
        return None

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        if isinstance(self._launch, Prepared):
            self._launch.prepare(instance)
        start_s = self._now()
        self.result = self._launch()
        self.seconds.append(self._told.seconds(self._now() - start_s))
        return self.seconds[-1], self.seconds[-1]

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        raise AssertionError("no request migrates here")

    def discard(self, request: int, destination: int) -> None:
        raise AssertionError("no request migrates here")


def _serve(probe: _Probe, iterations: int) -> None:
    """Let a few instances run at least so many iterations in all."""
    count, each = INSTANCES, -(-iterations // INSTANCES)
    none = np.full(count, -1)
    trace = Trace(
        "iterations",
        tuple(map(str, range(count))),
        np.zeros(count),
        np.ones(count, dtype=np.int64),
        np.full(count, each),
        none,
        none,
        np.full(count, np.nan),
    )
    simulate(
        trace,
        router=RoundRobin(),
        cluster=Placement(count),
        engine=_ENGINE,
        cost=AffineCost(1.0),
        kv_bytes_per_token=1,
        rules=Rules(fast_forward=False),
        executor=probe,
    )
