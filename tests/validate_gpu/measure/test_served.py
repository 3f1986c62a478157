"""Iterations are timed where an engine serves: one launch for each, with the engine's own work between them."""

import pytest
import torch

from validate_gpu.measure.served import ServedTimer


class Clock:
    """A clock that only launches move."""

    def __init__(self, launch_s: float) -> None:
        self.now_s = 0.0
        self.launches = 0
        self._launch_s = launch_s

    def __call__(self) -> float:
        return self.now_s

    def launch(self) -> torch.Tensor:
        self.launches += 1
        self.now_s += self._launch_s
        return torch.tensor([self.launches])


@pytest.mark.parametrize(("launch_s", "repeats"), [(1.0, 7), (0.06, 10), (1e-5, 200)])
def test_a_launch_is_repeated_for_the_sample_and_its_seconds_are_the_launchs_alone(launch_s, repeats):
    clock = Clock(launch_s)
    timing = ServedTimer(0.105, clock).time([clock.launch])
    assert timing.seconds == pytest.approx([launch_s] * repeats)
    assert timing.timed == "served"
    assert int(timing.result) == clock.launches > repeats


def test_each_repeat_is_told_at_the_reference_speed() -> None:
    clock = Clock(1.0)
    work_s: list[float] = []

    def slowness(seconds: float) -> float:
        work_s.append(seconds)
        return 1.0 + len(work_s) % 2

    timing = ServedTimer(0.0, clock, slowness).time([clock.launch])
    # The first reading is for whatever came before.
    assert work_s[0] == float("inf")
    assert timing.seconds == pytest.approx([1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 1.0])
    # One in every instance's turn: eight were run for the seven.
    assert timing.slowness == 1.5
    assert ServedTimer(0.0, clock).time([clock.launch]).slowness is None


def test_what_prepares_a_launch_is_not_timed_and_goes_round_the_instances() -> None:
    clock = Clock(1.0)

    instances: list[int] = []

    class Launch:
        def prepare(self, instance: int) -> None:
            instances.append(instance)
            clock.now_s += 100.0

        def __call__(self) -> torch.Tensor:
            return clock.launch()

    assert ServedTimer(0.0, clock).time([Launch()]).seconds == pytest.approx([1.0] * 7)
    assert instances[-4:] == [0, 1, 2, 3]
