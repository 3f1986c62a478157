"""Timing whole iterations within a serving engine; repeated in a bare loop they would find all their data in caches."""

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
    """A launch that needs something done before each call; that is not timed."""

    def prepare(self, instance: int) -> None:
        """Make ready for an iteration of one of the `INSTANCES`."""
        ...


class ServedTimer:
    """Times a launch by running it in place of every iteration of a few simulated instances.

    Between two launches there are then scheduling, clock readings and inputs, as in a lockstep run, which is what the
    timings are to predict. A launch ends when its result is on the host.
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
        speed = AtReferenceSpeed(self._slowness)
        probe = _Probe(launch, self._now, speed)
        _serve(probe, repeats)
        return Timing(np.array(probe.seconds[:repeats]), "served", probe.result, speed.slowness)


class _Probe:
    """An executor that runs and times the launch for every step."""

    measured = True

    def __init__(self, launch: Launch, now: Callable[[], float], speed: AtReferenceSpeed) -> None:
        self.seconds: list[float] = []
        self.result: Tensor
        self._launch = launch
        self._now = now
        self._speed = speed

    def pool(self, instance: int) -> BlockPool | None:
        return None

    def execute(self, instance: int, step: Step, decoding: Sequence[Request]) -> tuple[float, float]:
        if isinstance(self._launch, Prepared):
            self._launch.prepare(instance)
        start_s = self._now()
        self.result = self._launch()
        self.seconds.append(self._speed.seconds(self._now() - start_s))
        return self.seconds[-1], self.seconds[-1]

    def copy(self, request: Request, source: int, destination: int, start_tokens: int, end_tokens: int) -> None:
        raise AssertionError("no request migrates here")

    def discard(self, request: int, destination: int) -> None:
        raise AssertionError("no request migrates here")


def _serve(probe: _Probe, iterations: int) -> None:
    """Run a small simulation of at least so many iterations in all."""
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
