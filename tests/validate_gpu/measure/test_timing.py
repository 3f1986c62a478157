"""Timers: repeats and medians by a clock of the test's own; CUDA's calls in their order, on a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from validate_gpu.measure.timing import GraphTimer, HostTimer, StreamTimer

GPU = torch.device("cuda", 0)


class Device:
    """What a timer needs of ``torch.cuda``: a clock that launches move, and captures that record them."""

    def __init__(self, launch_s: float) -> None:
        self.clock_s = 0.0
        self.launch_s = launch_s
        self.capturing: list[Callable[[], Tensor]] | None = None
        self.refuses_capture = False
        self.head_starts = 0
        self.replays = 0

    def launch(self, value: float) -> Callable[[], Tensor]:
        """An operator that fills its result, as often as it is replayed."""
        result = torch.zeros(2)

        def run() -> Tensor:
            if self.capturing is None:
                self.clock_s += self.launch_s
                return result.fill_(value)
            if self.refuses_capture:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.capturing.append(run)
            return result

        return run

    def module(self) -> Any:
        device = self

        class Graph:
            def __init__(self) -> None:
                self.recorded: list[Callable[[], Tensor]] = []

            def replay(self) -> None:
                device.replays += 1
                for run in self.recorded:
                    run()

        @contextmanager
        def graph(captured: Graph) -> Iterator[None]:
            device.capturing = captured.recorded
            try:
                yield
            finally:
                device.capturing = None

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at_s = device.clock_s

            def elapsed_time(self, end: Any) -> float:
                return float(end.at_s - self.at_s) * 1e3

        @contextmanager
        def stream(_: Any) -> Iterator[None]:
            yield

        def sleep(cycles: int) -> None:
            assert cycles > 0
            device.head_starts += 1

        waits = SimpleNamespace(wait_stream=lambda other: None)
        return SimpleNamespace(
            Stream=lambda _: waits,
            current_stream=lambda _: waits,
            stream=stream,
            synchronize=lambda _: None,
            CUDAGraph=Graph,
            graph=graph,
            Event=Event,
            _sleep=sleep,
        )


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    stand_in = Device(launch_s=1e-4)
    for name, value in vars(stand_in.module()).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return stand_in


def test_a_captured_launch_takes_its_share_of_a_replay(device: Device) -> None:
    timing = GraphTimer(GPU, sample_s=0.0).time([device.launch(float(value)) for value in (1, 2, 3)])
    assert timing.timed == "graph"
    assert timing.seconds.tolist() == pytest.approx([1e-4] * 7)
    assert timing.result.tolist() == [1.0, 1.0]


def test_replays_fill_the_time_for_a_sample(device: Device) -> None:
    assert len(GraphTimer(GPU, sample_s=0.0051).time([device.launch(1.0), device.launch(1.0)]).seconds) == 25
    assert len(GraphTimer(GPU, sample_s=9.0).time([device.launch(1.0)]).seconds) == 50


def test_the_result_is_poisoned_and_must_be_written_again(device: Device) -> None:
    idle = torch.zeros(2)
    timing = GraphTimer(GPU, sample_s=0.0).time([lambda: idle])
    assert torch.isnan(timing.result).all()


def test_what_cannot_be_captured_is_launched_behind_a_head_start(device: Device) -> None:
    device.refuses_capture = True
    timing = GraphTimer(GPU, sample_s=0.0).time([device.launch(5.0), device.launch(6.0)])
    assert timing.timed == "stream"
    assert timing.seconds.tolist() == pytest.approx([1e-4] * 7)
    assert timing.result.tolist() == [5.0, 5.0]
    assert device.head_starts == 8


def test_uncaptured_steps_get_no_head_start(device: Device) -> None:
    timing = StreamTimer(GPU, sample_s=0.0).time([device.launch(5.0)])
    assert (timing.timed, len(timing.seconds), device.head_starts, device.replays) == ("stream", 7, 0, 0)


def test_the_hosts_seconds_are_told_at_the_reference_speed() -> None:
    now_s = iter(range(1000))
    slownesses = iter([9.0, 1.0, 2.0, 4.0, 1.0, 1.0, 2.0, 2.0])
    timer = HostTimer(lambda: None, 0.0, now=lambda: float(next(now_s)), slowness=lambda seconds: next(slownesses))
    timing = timer.time([lambda: torch.ones(1), lambda: torch.ones(1)])
    # Two launches a second, and the first reading is of what came before.
    assert timing.seconds.tolist() == [0.5, 0.25, 0.125, 0.5, 0.5, 0.25, 0.25]
    assert timing.slowness == 2.0


def test_the_host_sees_a_result_once_it_is_synchronised() -> None:
    clock = SimpleNamespace(now_s=0.0)
    lengths = iter([0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])

    def synchronize_after_launch() -> None:
        clock.now_s += clock.pending_s
        clock.pending_s = 0.0

    clock.pending_s = 0.0

    def launch() -> Tensor:
        clock.pending_s = next(lengths)
        return torch.ones(1)

    timing = HostTimer(synchronize_after_launch, sample_s=0.0, now=lambda: clock.now_s).time([launch])
    # Two warm-ups, then seven repeats.
    assert timing.seconds.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
