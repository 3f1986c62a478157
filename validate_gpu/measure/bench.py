"""Measuring one point: the seam to a device, and PyTorch's side of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from validate_gpu.live.graphs import CAPTURED_TOKENS
from validate_gpu.measure.attention_work import AttentionWork
from validate_gpu.measure.iteration_work import IterationWork
from validate_gpu.measure.operator_work import OperatorWork
from validate_gpu.measure.points import (
    AllReducePoint,
    AttentionPoint,
    ElementwisePoint,
    IterationPoint,
    KvCopyPoint,
    LayersPoint,
    Point,
    ProductPoint,
    Sample,
    SampledPoint,
)
from validate_gpu.measure.timing import Timer
from validate_gpu.measure.work import Work, check


class NotRunError(Exception):
    """A point cannot be run; others can."""


class DeviceLostError(Exception):
    """The device answers no more: nothing further can be measured in this process."""


class Bench(Protocol):
    """One device."""

    def measure(self, point: Point) -> Sample:
        """Measure a point.

        Raises:
            CheckFailedError: its result is not what float32 gives.
            NotRunError: it does not fit the device, or the kernel refuses it.
            DeviceLostError: the device has failed, and measures no further point.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timers:
    """How to time what runs captured, what runs as it is launched, what ends on the host, and whole iterations."""

    captured: Timer
    launched: Timer
    host: Timer
    served: Timer


class TorchBench:
    """Points on a device of PyTorch's."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        timers: Timers,
        attention: AttentionWork,
        operators: OperatorWork,
        iterations: IterationWork,
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._timers = timers
        self._attention = attention
        self._operators = operators
        self._iterations = iterations

    def measure(self, point: Point) -> Sample:
        """Prepare, time and check one point.

        Raises:
            CheckFailedError: its result is not what float32 gives.
            NotRunError: it does not fit the device, or the kernel refuses it.
            DeviceLostError: the device has failed.
        """
        try:
            with torch.inference_mode():
                work, timer = self._prepare(point)
                timing = timer.time(work.launches)
                error = work.error(timing.result)
        except Exception as broken:
            # Whatever a kernel library raises: the other points may still run, unless the device is gone.
            if not self._alive():
                raise DeviceLostError(str(broken)) from broken
            raise NotRunError(f"{type(broken).__name__}: {broken}") from broken
        check(error, self._dtype)
        low, median, high = np.quantile(timing.seconds, (0.25, 0.5, 0.75))
        return Sample(float(median), float(high - low), len(timing.seconds), timing.timed, error, timing.slowness)

    def _alive(self) -> bool:
        """Whether the device still computes, its unused memory given back."""
        if self._device.type != "cuda":
            return True
        try:
            torch.cuda.empty_cache()
            return float(torch.ones(1, device=self._device).item()) == 1.0
        except RuntimeError:
            return False

    def _prepare(self, point: Point) -> tuple[Work, Timer]:
        timers, operators = self._timers, self._operators
        match point:
            case AttentionPoint():
                return self._attention.work(point), timers.captured
            case ProductPoint():
                return operators.product(point), timers.captured
            case ElementwisePoint():
                return operators.elementwise(point), timers.captured
            case LayersPoint():
                timer = timers.captured if point.tokens <= CAPTURED_TOKENS else timers.launched
                return operators.layers(point), timer
            case SampledPoint():
                return operators.sampled(point), timers.captured
            case KvCopyPoint():
                return operators.kv_copy(point), timers.host
            case AllReducePoint():
                return operators.all_reduce(point), timers.host
            case IterationPoint():
                return self._iterations.work(point), timers.served
